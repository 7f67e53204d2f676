//! Known ways out of a container, and what may not leak into one.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use serde_json::json;
use towline_shim_api::{ClientError, FailureCode};

use towline_sys::mount::Overlay;

use crate::pod::{Options, Pod, exec};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().trim().into()
}

#[test]
fn only_the_standard_streams_are_open_in_a_container() {
    let Some(pod) = Pod::new() else { return };
    // `ls` itself opens the directory as 3.
    pod.run_to_end(
        "a",
        &["sh", "-c", "ls /proc/self/fd; readlink /proc/self/fd/0"],
    );
    let want = ["0", "1", "2", "3", "/dev/null"];
    assert_eq!(pod.log("a"), want.map(|line| format!("stdout F {line}")));
    pod.run("b", &["sleep", "1000"]);
    assert_eq!(
        text(&pod.exec("b", &["ls", "/proc/self/fd"]).stdout),
        "0\n1\n2\n3"
    );
    pod.shut_down();
}

#[test]
fn a_working_directory_outside_is_refused() {
    let Some(pod) = Pod::new() else { return };
    pod.run("victim", &["sleep", "1000"]);
    for fd in 0..32 {
        let cwd = format!("/proc/self/fd/{fd}");
        let mut spec = pod.spec("a", &["ls"]);
        spec["process"]["cwd"] = json!(cwd);
        let Err(ClientError::Failure(failure)) = pod.client().create(pod.bundle("a", &spec)) else {
            panic!("it was created in {cwd}");
        };
        assert_eq!(
            failure.code,
            FailureCode::WorkingDirectory,
            "{cwd}: {failure}"
        );
        let mut command = exec("victim", &["ls"]);
        command.cwd = Some(cwd.clone().into());
        assert!(pod.client().exec(command).is_err(), "{cwd}");
    }
    pod.shut_down();
}

#[test]
fn the_shims_executable_cannot_be_written_to() {
    let Some(pod) = Pod::new() else { return };
    let exe = format!("/proc/{}/exe", pod.ready.pid);
    let error = std::fs::File::options().write(true).open(&exe).unwrap_err();
    // Not only "text file busy", which ends with the process.
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // Nor while it is held open, once the process has gone.
    let held = std::fs::File::open(&exe).unwrap();
    pod.shut_down();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    assert!(std::fs::File::options().write(true).open(again).is_err());
}

#[test]
fn the_socket_and_the_state_are_roots_alone() {
    let Some(pod) = Pod::new() else { return };
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pod.ready.socket), 0o600);
    assert_eq!(mode(&pod.state_dir()), 0o700);
    pod.run("a", &["sleep", "1000"]);
    assert_eq!(mode(&pod.state_dir().join("containers/a.json")), 0o600);
    assert_eq!(mode(&pod.log_path("a")), 0o640);
    pod.shut_down();
}

#[test]
fn an_environment_of_the_image_cannot_upset_the_shim() {
    let Some(pod) = Pod::new() else { return };
    let mut spec = pod.spec("a", &["env"]);
    spec["process"]["env"] = json!(["PATH=/bin", "=x", "noequals", "A=1", "A=2", "B="]);
    // What would be read for HOME, without end.
    std::fs::create_dir_all(pod.rootfs("a").join("etc")).unwrap();
    nix::unistd::mkfifo(
        &pod.rootfs("a").join("etc/passwd"),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
    )
    .unwrap();
    pod.run_spec("a", &spec);
    assert_eq!(pod.wait("a").exit.unwrap().code, 0);
    let log = pod.log("a");
    assert!(
        log.contains(&"stdout F A=2".to_owned()) && log.contains(&"stdout F HOME=/".to_owned())
    );
    assert!(!log.iter().any(|line| line.contains("noequals")), "{log:?}");
    pod.shut_down();
}

#[test]
fn links_of_the_image_in_place_of_mounts_do_not_lead_out() {
    let Some(pod) = Pod::new() else { return };
    let outside = pod.dir.path().join("outside");
    std::fs::create_dir_all(outside.join("etc")).unwrap();
    let root = pod.rootfs("a");
    symlink(&outside, root.join("data")).unwrap();
    let source = pod.dir.path().join("source");
    std::fs::write(&source, "volume").unwrap();
    let mut spec = pod.spec("a", &["cat", "/data/etc/hosts"]);
    spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/data/etc/hosts", "type": "bind", "source": source, "options": ["bind"]}
    ));
    spec["process"]["cwd"] = json!("/data/work");
    // Whether it runs or is refused, nothing is made outside.
    if pod.client().create(pod.bundle("a", &spec)).is_ok() {
        pod.client().start("a").unwrap();
        pod.wait("a");
    }
    assert_eq!(std::fs::read_dir(outside.join("etc")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    pod.shut_down();
}

/// Two containers share a volume: while one is made, the other exchanges the place in that volume where its next mount is to go for a link to
/// where the volumes are. If that mount went there, the volume after it would be taken from what the other one has made.
#[test]
fn a_mounts_place_that_is_exchanged_for_a_link_does_not_lead_out() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let Some(pod) = Pod::new() else { return };
    let volumes = pod.dir.path().join("volumes");
    let [shared, second] = ["shared", "second"].map(|name| volumes.join(name));
    let secret = pod.dir.path().join("secret");
    for path in [&shared.join("place"), &second, &secret] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(second.join("mark"), "volume\n").unwrap();
    std::fs::write(secret.join("mark"), "secret").unwrap();
    symlink(&secret, shared.join("second")).unwrap();
    symlink(&volumes, shared.join("link")).unwrap();
    let bind = |source: &std::path::Path, destination: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]});
    let mut ran = 0;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (place, link) = (shared.join("place"), shared.join("link"));
                renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // Without it a failed assertion would leave the other thread at it.
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..100 {
                let id = format!("r{round}");
                let mut spec = pod.spec(&id, &["cat", "/b/mark"]);
                let mounts = spec["mounts"].as_array_mut().unwrap();
                mounts.push(bind(&shared, "/a"));
                mounts.push(bind(&shared, "/a/place"));
                mounts.push(bind(&second, "/b"));
                if pod.client().create(pod.bundle(&id, &spec)).is_err() {
                    continue;
                }
                pod.client().start(&id).unwrap();
                pod.wait(&id);
                assert_eq!(pod.log(&id), ["stdout F volume"], "round {round}");
                ran += 1;
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(ran > 0, "none was made");
    // Nothing is mounted where the host sees it: that is looked at here.
    pod.shut_down();
}

#[test]
fn a_link_in_place_of_dev_null_does_not_lead_out() {
    let Some(pod) = Pod::new() else { return };
    let precious = pod.dir.path().join("precious");
    std::fs::write(&precious, "kept").unwrap();
    let mut spec = pod.spec("a", &["sh", "-c", "echo x > /dev/null; cat /proc/keys"]);
    // Without a mount on /dev the image's own entry is met.
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev");
    symlink(&precious, pod.rootfs("a").join("dev/null")).unwrap();
    if pod.client().create(pod.bundle("a", &spec)).is_ok() {
        pod.client().start("a").unwrap();
        pod.wait("a");
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(precious.metadata().unwrap().rdev(), 0);
    pod.shut_down();
}

#[test]
fn signals_and_the_oom_score_are_as_programs_expect() {
    let Some(pod) = Pod::new() else { return };
    let script = "cat /proc/self/status; cat /proc/self/oom_score_adj; yes | head -n 1";
    let mut spec = pod.spec("a", &["sh", "-c", script]);
    spec["process"]["oomScoreAdj"] = json!(321);
    pod.run_spec("a", &spec);
    let score = format!("/proc/{}/oom_score_adj", pod.ready.pid);
    let shims = std::fs::read_to_string(&score).unwrap();
    assert_eq!(pod.wait("a").exit.unwrap().code, 0);
    let log = pod.log("a").join("\n");
    assert!(log.contains("SigBlk:\t0000000000000000"), "{log}");
    // Two belong to the C library, which lets nobody change them.
    let ignored = ["0000000000000000", "0000000180000000"].map(|bits| format!("SigIgn:\t{bits}"));
    assert!(ignored.iter().any(|line| log.contains(line)), "{log}");
    assert!(log.contains("stdout F 321"), "{log}");
    assert_ne!(shims.trim(), "321");
    pod.shut_down();
}

#[test]
fn where_no_read_only_view_can_be_made_a_sealed_copy_runs() {
    if !towline_sys::testing::need_root() {
        return;
    }
    towline_sys::testing::in_mount_namespace(|| {
        // The kernel stacks two overlays, and the view would be the third.
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c, empty] = ["a", "b", "c", "empty"].map(|name| dir.path().join(name));
        for path in [&a, &b, &c, &empty] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::copy(crate::pod::SHIM, a.join("shim")).unwrap();
        let stack = |lower: &std::path::Path, on: &std::path::Path, n: u32| {
            let [upper, work] = ["upper", "work"].map(|name| dir.path().join(format!("{name}{n}")));
            std::fs::create_dir(&upper).unwrap();
            std::fs::create_dir(&work).unwrap();
            let lower = [lower.to_owned()];
            let upper = Some((upper.as_path(), work.as_path()));
            towline_sys::mount::overlay(
                &Overlay {
                    lower: &lower,
                    upper,
                },
                on,
            )
            .unwrap();
        };
        stack(&a, &b, 1);
        stack(&b, &c, 2);
        let options = Options {
            shim: vec![c.join("shim")],
            ..Options::default()
        };
        let Some(pod) = Pod::with(options) else {
            return;
        };
        let exe = format!("/proc/{}/exe", pod.ready.pid);
        let target = std::fs::read_link(&exe).unwrap();
        assert!(target.to_str().unwrap().contains("memfd:"), "{target:?}");
        assert!(std::fs::File::options().write(true).open(&exe).is_err());
        assert_eq!(pod.run_to_end("a", &["true"]).exit.unwrap().code, 0);
        pod.shut_down();
        towline_sys::mount::unmount_under(dir.path()).unwrap();
    });
}

#[test]
fn nothing_of_the_caller_is_inherited() {
    let options = Options {
        shim: [
            "/bin/sh",
            "-c",
            "export LEAK=1; exec 7</etc/passwd \"$0\" \"$@\"",
            crate::pod::SHIM,
        ]
        .map(Into::into)
        .into(),
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    let shim = format!("/proc/{}", pod.ready.pid);
    for fd in std::fs::read_dir(format!("{shim}/fd")).unwrap() {
        let target = std::fs::read_link(fd.unwrap().path()).unwrap();
        assert_ne!(target, std::path::Path::new("/etc/passwd"));
    }
    let env = std::fs::read(format!("{shim}/environ")).unwrap();
    assert!(!String::from_utf8(env).unwrap().contains("LEAK"));
    pod.shut_down();
}

#[test]
fn a_score_that_cannot_be_lowered_stays() {
    let Some(setpriv) = towline_sys::testing::need_program("setpriv") else {
        return;
    };
    let options = Options {
        shim: vec![
            setpriv,
            "--bounding-set=-sys_resource".into(),
            "--inh-caps=-sys_resource".into(),
            "--".into(),
            crate::pod::SHIM.into(),
        ],
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    for (id, score) in [("low", -900), ("high", 500)] {
        let mut spec = pod.spec(id, &["cat", "/proc/self/oom_score_adj"]);
        spec["process"]["oomScoreAdj"] = json!(score);
        pod.run_spec(id, &spec);
        assert_eq!(pod.wait(id).exit.unwrap().code, 0);
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(pod.log("low"), [format!("stdout F {}", own.trim())]);
    assert_eq!(pod.log("high"), ["stdout F 500"]);
    pod.shut_down();
}

#[test]
fn fifos_of_the_image_do_not_stop_the_shim() {
    let Some(pod) = Pod::new() else { return };
    let fifo = |id: &str, path: &str| {
        let path = pod.rootfs(id).join(path);
        drop(std::fs::remove_file(&path));
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::unistd::mkfifo(&path, mode).unwrap();
    };
    let ended = |id: &str, spec: &serde_json::Value| {
        if pod.client().create(pod.bundle(id, spec)).is_ok() {
            pod.client().start(id).unwrap();
            pod.wait(id);
        }
        assert!(pod.client().list().is_ok());
    };
    let source = pod.dir.path().join("source");
    std::fs::write(&source, "volume").unwrap();
    let mut spec = pod.spec("a", &["true"]);
    fifo("a", "home/file");
    spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/home/file", "type": "bind", "source": source, "options": ["bind", "ro"]}
    ));
    ended("a", &spec);
    // No mount hides the image's own device.
    let mut spec = pod.spec("b", &["true"]);
    fifo("b", "dev/null");
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev");
    ended("b", &spec);
    pod.shut_down();
}
