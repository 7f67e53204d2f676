//! How containers end: codes, signals, memory, and what they leave running.

use std::time::Duration;

use serde_json::json;
use towline_shim_api::{ClientError, FailureCode, PidMode, Status};

use crate::pod::{Options, Pod, poll};

#[test]
fn codes_and_signals_are_told_apart() {
    let Some(pod) = Pod::new() else { return };
    assert_eq!(pod.run_to_end("a", &["true"]).exit.unwrap().code, 0);
    pod.run("b", &["sleep", "1000"]);
    pod.client().kill("b", 9).unwrap();
    let exit = pod.wait("b").exit.unwrap();
    assert_eq!(
        (exit.code, exit.signal, exit.oom_killed),
        (137, Some(9), false)
    );
    // A program that handles TERM is asked by it; one that does not, as
    // process 1, never sees it.
    pod.run(
        "c",
        &[
            "sh",
            "-c",
            "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.05; done",
        ],
    );
    poll(|| !pod.log("c").is_empty());
    pod.client().kill("c", 15).unwrap();
    assert_eq!(pod.wait("c").exit.unwrap().code, 3);
    assert_eq!(pod.log("c"), ["stdout F up", "stdout F asked"]);
    // A signal after the end is no error.
    pod.client().kill("c", 9).unwrap();
    pod.shut_down();
}

#[test]
fn waiting_ends_with_the_container_or_the_time() {
    let Some(pod) = Pod::new() else { return };
    pod.run(
        "a",
        &[
            "sh",
            "-c",
            "trap 'exit 0' TERM; while :; do sleep 0.05; done",
        ],
    );
    let state = pod
        .client()
        .wait("a", Some(Duration::from_millis(50)))
        .unwrap();
    assert_eq!(state.status, Status::Running);
    let socket = pod.ready.socket.clone();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut client = towline_shim_api::Client::connect(&socket).unwrap();
            std::thread::spawn(move || client.wait("a", None).unwrap())
        })
        .collect();
    pod.client().kill("a", 9).unwrap();
    for thread in waiting {
        assert_eq!(thread.join().unwrap().status, Status::Exited);
    }
    pod.shut_down();
}

#[test]
fn running_out_of_memory_is_seen() {
    let Some(pod) = Pod::new() else { return };
    let mut spec = pod.spec(
        "a",
        &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"],
    );
    // The test's file systems have no device nodes but the defaults.
    spec["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    pod.run_spec("a", &spec);
    let exit = pod.wait("a").exit.unwrap();
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    pod.shut_down();
}

#[test]
fn statistics_and_limits_are_those_of_the_cgroup() {
    let Some(pod) = Pod::new() else { return };
    let mut spec = pod.spec(
        "a",
        &[
            "sh",
            "-c",
            "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 1000",
        ],
    );
    spec["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}});
    pod.run_spec("a", &spec);
    let mut client = pod.client();
    poll(|| client.stats("a").unwrap().cpu_usage_ns.unwrap() > 20_000_000);
    let stats = client.stats("a").unwrap();
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert!(stats.memory_usage.unwrap() >= stats.memory_working_set.unwrap());
    assert!(stats.memory_working_set.unwrap() > 0);
    assert!((1..=3).contains(&stats.pids.unwrap()), "{stats:?}");
    client
        .update("a", json!({"memory": {"limit": 32 << 20}}))
        .unwrap();
    assert_eq!(client.stats("a").unwrap().memory_limit, Some(32 << 20));
    pod.shut_down();
}

#[test]
fn what_the_first_process_leaves_is_killed() {
    for pid in [PidMode::Container, PidMode::Pod, PidMode::Host] {
        let options = Options {
            pid,
            ..Options::default()
        };
        let Some(pod) = Pod::with(options) else {
            return;
        };
        pod.run(
            "a",
            &["sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exit 4"],
        );
        assert_eq!(pod.wait("a").exit.unwrap().code, 4);
        poll(|| pod.processes().is_empty());
        pod.shut_down();
    }
}

#[test]
fn a_program_that_cannot_run_is_refused_or_told_in_the_log() {
    let Some(pod) = Pod::new() else { return };
    let create = |id: &str, args: &[&str]| {
        let create = pod.bundle(id, &pod.spec(id, args));
        match pod.client().create(create) {
            Err(ClientError::Failure(failure)) => failure,
            other => panic!("{other:?}"),
        }
    };
    let failure = create("a", &["nosuch"]);
    assert_eq!(failure.code, FailureCode::ExecutableNotFound);
    assert_eq!(
        failure.message,
        "exec: \"nosuch\": executable file not found in $PATH"
    );
    let failure = create("b", &["/no/such"]);
    assert_eq!(
        failure.message,
        "exec: \"/no/such\": stat /no/such: no such file or directory"
    );
    assert!(pod.client().list().unwrap().is_empty());
    assert!(pod.processes().is_empty());

    // For another machine: seen by the kernel only.
    let program = pod.rootfs("c").join("bin/foreign");
    std::fs::write(&program, b"\x7fELF\x02\x01\x01\0nonsense").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    assert_eq!(
        pod.run_to_end("c", &["/bin/foreign"]).exit.unwrap().code,
        255
    );
    assert_eq!(
        pod.log("c"),
        ["stderr F exec /bin/foreign: exec format error"]
    );
    pod.shut_down();
}

#[test]
fn a_failed_creation_leaves_nothing_and_can_be_tried_again() {
    let Some(pod) = Pod::new() else { return };
    let mut spec = pod.spec("a", &["true"]);
    spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}
    ));
    let Err(ClientError::Failure(failure)) = pod.client().create(pod.bundle("a", &spec)) else {
        panic!("it was created");
    };
    assert!(failure.message.contains("/no/such/source"), "{failure}");
    assert!(pod.processes().is_empty());
    assert!(
        !towline_sys::cgroup::Cgroup::new(&format!("{}/a", pod.cgroup))
            .unwrap()
            .exists()
    );
    assert_eq!(pod.run_to_end("a", &["true"]).exit.unwrap().code, 0);
    pod.shut_down();
}

#[test]
fn a_killed_shim_is_tidied_up_after() {
    let Some(pod) = Pod::new() else { return };
    pod.run_to_end("ended", &["sh", "-c", "exit 9"]);
    pod.run("a", &["sleep", "1000"]);
    let alive = crate::pod::launch("cleanup", &pod.state_dir());
    assert!(!alive.status.success(), "not while the shim is alive");
    let again = crate::pod::launch("start", &pod.state_dir());
    assert!(!again.status.success(), "nor a second shim");
    towline_sys::proc::send_signal(pod.ready.pid, 9).unwrap();
    poll(|| {
        crate::pod::launch("cleanup", &pod.state_dir())
            .status
            .success()
    });
    assert!(
        !towline_sys::cgroup::Cgroup::new(&pod.cgroup)
            .unwrap()
            .exists()
    );
    let code = |id: &str| {
        let saved = std::fs::read(pod.state_dir().join(format!("containers/{id}.json"))).unwrap();
        let saved: towline_shim_api::ContainerState = serde_json::from_slice(&saved).unwrap();
        saved.exit.unwrap().code
    };
    assert_eq!((code("ended"), code("a")), (9, 255));
    assert!(!pod.ready.socket.exists());
    let again = crate::pod::launch("start", &pod.state_dir());
    assert!(again.status.success());
}

#[test]
fn a_creation_that_is_stuck_is_given_up() {
    let options = Options {
        patience_ms: Some(500),
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    let Some(sleep) = towline_sys::testing::need_program("sleep") else {
        return;
    };
    let mut spec = pod.spec("a", &["true"]);
    // Stands for whatever in an image makes the library's process wait.
    spec["hooks"] = json!({"createContainer": [{"path": sleep, "args": ["sleep", "1000"]}]});
    assert!(pod.client().create(pod.bundle("a", &spec)).is_err());
    assert!(pod.processes().is_empty());
    assert_eq!(pod.run_to_end("b", &["true"]).exit.unwrap().code, 0);
    pod.shut_down();
}
