//! Commands inside a running container.

use std::time::{Duration, Instant};

use serde_json::json;
use towline_shim_api::{ClientError, Exec, FailureCode, Request, Status, frame};
use towline_sys::cgroup::Cgroup;

use crate::pod::{LONG, Pod, exec, poll};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end()
}

#[test]
fn it_has_the_containers_user_environment_directory_and_streams() {
    let Some(pod) = Pod::new() else { return };
    let mut spec = pod.spec("a", &["sleep", "1000"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 2000, "additionalGids": [2000, 3000]});
    spec["process"]["env"] = json!(["PATH=/bin", "A=1", "B=2"]);
    spec["process"]["cwd"] = json!("/made/by/shim");
    pod.run_spec("a", &spec);
    let result = pod.exec("a", &["id"]);
    assert_eq!(text(&result.stdout), "uid=1000 gid=2000 groups=2000,3000");
    assert_eq!(text(&pod.exec("a", &["pwd"]).stdout), "/made/by/shim");
    let mut command = exec("a", &["sh", "-c", "echo $A $B $HOME; echo err >&2; exit 5"]);
    command.env = vec!["B=3".into()];
    let result = pod.client().exec(command).unwrap();
    assert_eq!(text(&result.stdout), "1 3 /");
    assert_eq!(text(&result.stderr), "err");
    assert_eq!(result.exit.code, 5);
    let mut command = exec("a", &["pwd"]);
    command.cwd = Some("/tmp".into());
    assert_eq!(text(&pod.client().exec(command).unwrap().stdout), "/tmp");
    // The command sees the container's processes, and is in its cgroup.
    let listing = pod.exec("a", &["ps", "-o", "pid,args"]);
    assert!(
        text(&listing.stdout).contains("1 sleep 1000"),
        "{listing:?}"
    );
    let groups = pod.exec("a", &["cat", "/proc/self/cgroup"]);
    assert!(!text(&groups.stdout).contains(".."), "{groups:?}");
    assert!(pod.log("a").is_empty());
    pod.shut_down();
}

#[test]
fn failures_say_what_kind_they_are() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    std::fs::write(pod.rootfs("a").join("bin/plain"), "x").unwrap();
    let foreign = pod.rootfs("a").join("bin/foreign");
    std::fs::write(&foreign, b"\x7fELF\x02\x01\x01\0nonsense").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&foreign, mode).unwrap();
    let cases = [
        (
            "nosuch",
            FailureCode::ExecutableNotFound,
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            FailureCode::ExecutableNotFound,
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (
            "/bin/plain",
            FailureCode::ExecutableUnusable,
            "exec: \"/bin/plain\": permission denied",
        ),
        (
            "/bin",
            FailureCode::ExecutableUnusable,
            "exec: \"/bin\": is a directory",
        ),
        (
            "/bin/foreign",
            FailureCode::ExecutableUnusable,
            "exec /bin/foreign: exec format error",
        ),
    ];
    for (program, code, message) in cases {
        let Err(ClientError::Failure(failure)) = pod.client().exec(exec("a", &[program])) else {
            panic!("{program} ran");
        };
        assert_eq!((failure.code, failure.message.as_str()), (code, message));
    }
    let mut command = exec("a", &["true"]);
    command.cwd = Some("/no/such".into());
    let Err(ClientError::Failure(failure)) = pod.client().exec(command) else {
        panic!("it ran");
    };
    assert_eq!(failure.code, FailureCode::WorkingDirectory, "{failure}");
    // None of the failures keeps the container from ending.
    pod.client().kill("a", 9).unwrap();
    assert_eq!(pod.wait("a").exit.unwrap().signal, Some(9));
    let Err(ClientError::Failure(failure)) = pod.client().exec(exec("a", &["true"])) else {
        panic!("it ran");
    };
    assert_eq!(failure.code, FailureCode::WrongState);
    pod.shut_down();
}

#[test]
fn a_timeout_kills_it_and_holds_up_nothing_else() {
    let Some(pod) = Pod::new() else { return };
    pod.run(
        "a",
        &["sh", "-c", "while :; do echo tick; sleep 0.05; done"],
    );
    let begun = Instant::now();
    let mut client = pod.client();
    let socket = pod.ready.socket.clone();
    let waiting = std::thread::spawn(move || {
        let mut command = exec("a", &["sh", "-c", "echo begun; sleep 1000 & sleep 1000"]);
        command.timeout_ms = Some(1500);
        towline_shim_api::Client::connect(socket)
            .unwrap()
            .exec(command)
            .unwrap()
    });
    // Meanwhile others are answered and the log grows.
    let mut answers = 0;
    let lines = || pod.log("a").len();
    let first = lines();
    while !waiting.is_finished() {
        assert_eq!(client.state("a").unwrap().status, Status::Running);
        assert_eq!(pod.exec("a", &["true"]).exit.code, 0);
        answers += 1;
    }
    let result = waiting.join().unwrap();
    assert!(result.exit.timed_out, "{result:?}");
    assert_eq!((result.exit.code, text(&result.stdout)), (137, "begun"));
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert!(answers >= 2, "{answers}");
    assert!(lines() > first + 2);
    // Its background process, in the same session, is dead too.
    poll(|| !text(&pod.exec("a", &["ps", "-o", "args"]).stdout).contains("sleep 1000"));
    pod.shut_down();
}

#[test]
fn a_client_that_goes_away_takes_its_command_along() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    let before = pod.processes().len();
    let mut stream = towline_shim_api::connect(&pod.ready.socket).unwrap();
    frame::write(
        &mut stream,
        &Request::Hello {
            oldest: 1,
            newest: 1,
        },
    )
    .unwrap();
    frame::write(&mut stream, &Request::Exec(exec("a", &["sleep", "777"]))).unwrap();
    poll(|| pod.processes().len() > before);
    drop(stream);
    poll(|| pod.processes().len() == before);
    pod.shut_down();
}

#[test]
fn output_is_bounded_and_whole_below_the_bound() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    let result = pod.exec("a", &["seq", "1", "200000"]);
    assert!(!result.exit.truncated);
    let lines: Vec<_> = text(&result.stdout).lines().collect();
    assert_eq!(lines.len(), 200_000);
    assert!(
        lines
            .iter()
            .zip(1..)
            .all(|(line, n)| *line == n.to_string())
    );
    let result = pod.exec("a", &["head", "-c", "20000000", "/dev/zero"]);
    assert!(result.exit.truncated && !result.exit.timed_out);
    assert_eq!((result.stdout.len(), result.exit.code), (16 << 20, 0));
    let endless = Exec {
        timeout_ms: Some(500),
        output_limit: Some(1000),
        ..exec("a", &["yes"])
    };
    let result = pod.client().exec(endless).unwrap();
    assert!(result.exit.truncated && result.exit.timed_out);
    assert_eq!(result.stdout.len(), 1000);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.ready.pid)).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident < 100 << 10, "{resident} KiB");
    let small = Exec {
        output_limit: Some(3),
        ..exec("a", &["sh", "-c", "echo 12345; echo 12345 >&2"])
    };
    let result = pod.client().exec(small).unwrap();
    assert_eq!(
        (&result.stdout[..], &result.stderr[..]),
        (&b"123"[..], &b"123"[..])
    );
    assert!(result.exit.truncated);
    pod.shut_down();
}

#[test]
fn what_it_leaves_in_the_background_does_not_hold_the_answer() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    let begun = Instant::now();
    let result = pod.exec("a", &["sh", "-c", "setsid sleep 1000 & echo done"]);
    assert_eq!((result.exit.code, text(&result.stdout)), (0, "done"));
    assert!(begun.elapsed() < Duration::from_secs(30));
    pod.shut_down();
}

#[test]
fn many_leave_nothing() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    let fds = || {
        std::fs::read_dir(format!("/proc/{}/fd", pod.ready.pid))
            .unwrap()
            .count()
    };
    pod.exec("a", &["true"]);
    let before = fds();
    for _ in 0..50 {
        assert_eq!(pod.exec("a", &["true"]).exit.code, 0);
        assert!(pod.client().exec(exec("a", &["nosuch"])).is_err());
    }
    poll(|| fds() <= before);
    let children = format!("/proc/{0}/task/{0}/children", pod.ready.pid);
    poll(|| {
        std::fs::read_to_string(&children)
            .unwrap()
            .split_whitespace()
            .count()
            == 1
    });
    let sockets = std::fs::read_dir(pod.state_dir().join("oci/a")).unwrap();
    let left = sockets.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("tenant")
    });
    assert_eq!(left.count(), 0);
    pod.client().kill("a", 9).unwrap();
    let ended = pod.client().wait("a", Some(LONG)).unwrap();
    assert_eq!(ended.status, Status::Exited);
    assert!(
        Cgroup::new(&ended.cgroup)
            .unwrap()
            .processes()
            .unwrap()
            .is_empty()
    );
    pod.shut_down();
}
