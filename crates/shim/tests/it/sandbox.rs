//! The pod's namespaces, and the greeting.

use std::collections::BTreeMap;

use serde_json::json;
use towline_shim_api::{ClientError, FailureCode, IpcMode, PidMode, Request, Response, frame};

use crate::pod::{Options, Pod, launch};

fn link(path: &str) -> String {
    std::fs::read_link(path).unwrap().display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().trim().into()
}

#[test]
fn containers_share_the_pods_namespaces_and_not_the_hosts() {
    let Some(pod) = Pod::new() else { return };
    for id in ["a", "b"] {
        pod.run(id, &["sleep", "1000"]);
    }
    let inside = |id: &str, kind: &str| {
        text(
            &pod.exec(id, &["readlink", &format!("/proc/self/ns/{kind}")])
                .stdout,
        )
    };
    for kind in ["net", "ipc", "uts"] {
        let a = inside("a", kind);
        assert_eq!(a, inside("b", kind), "{kind}");
        assert_ne!(a, link(&format!("/proc/self/ns/{kind}")), "{kind}");
    }
    for kind in ["pid", "mnt", "cgroup"] {
        assert_ne!(inside("a", kind), inside("b", kind), "{kind}");
    }
    assert_eq!(text(&pod.exec("a", &["hostname"]).stdout), "pod-of-test");
    pod.shut_down();
}

#[test]
fn a_shared_pid_namespace_has_the_shims_process_as_its_first() {
    let options = Options {
        pid: PidMode::Pod,
        shim: vec![crate::pod::SHIM.into(), "shim".into()],
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    pod.run("a", &["sleep", "1111"]);
    pod.run("b", &["sleep", "2222"]);
    let listing = text(&pod.exec("a", &["ps", "-o", "pid,args"]).stdout);
    assert!(
        listing.contains("sleep 1111") && listing.contains("sleep 2222"),
        "{listing}"
    );
    assert!(listing.contains("shim init"), "{listing}");
    // The end of one container does not touch the other.
    pod.client().kill("a", 9).unwrap();
    pod.wait("a");
    assert!(text(&pod.exec("b", &["ps", "-o", "args"]).stdout).contains("sleep 2222"));
    pod.shut_down();
}

#[test]
fn the_hosts_namespaces_when_asked() {
    let options = Options {
        host_network: true,
        ipc: IpcMode::Host,
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    let names = &pod.ready.namespaces;
    assert!(names.network.is_none() && names.ipc.is_none() && names.uts.is_none());
    pod.run("a", &["sleep", "1000"]);
    for kind in ["net", "ipc", "uts"] {
        let path = format!("/proc/self/ns/{kind}");
        assert_eq!(
            text(&pod.exec("a", &["readlink", &path]).stdout),
            link(&path),
            "{kind}"
        );
    }
    pod.shut_down();
}

#[test]
fn kernel_parameters_are_set_in_the_pods_namespaces() {
    let name = "net.ipv4.ip_unprivileged_port_start";
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let hosts = std::fs::read_to_string(path).unwrap();
    let options = Options {
        sysctls: BTreeMap::from([
            (name.into(), "77".into()),
            ("kernel.shmmni".into(), "99".into()),
        ]),
        ..Options::default()
    };
    let Some(pod) = Pod::with(options) else {
        return;
    };
    pod.run("a", &["sleep", "1000"]);
    assert_eq!(text(&pod.exec("a", &["cat", path]).stdout), "77");
    assert_eq!(
        text(&pod.exec("a", &["cat", "/proc/sys/kernel/shmmni"]).stdout),
        "99"
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), hosts);
    pod.shut_down();
}

#[test]
fn a_shim_that_cannot_start_says_why_and_leaves_nothing() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let error = |config: &str| {
        std::fs::write(dir.path().join("sandbox.json"), config).unwrap();
        let output = launch("start", dir.path());
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = r#"{"version":1,"id":"x","network":{"path":"/no/such/netns"}}"#;
    assert!(error(missing).contains("open the network namespace /no/such/netns"));
    let newer = r#"{"version":99,"id":"x","network":"host"}"#;
    assert!(error(newer).contains("has version 99"));
    let sysctl =
        r#"{"version":1,"id":"x","network":"host","sysctls":{"kernel.core_pattern":"|/x"}}"#;
    assert!(error(sysctl).contains("kernel.core_pattern"));
    assert!(error("{").contains("sandbox.json"));
    assert!(!dir.path().join("shim.sock").exists());
}

#[test]
fn the_greeting_comes_first_and_agrees_on_a_version() {
    let Some(pod) = Pod::new() else { return };
    let ask = |requests: &[serde_json::Value]| {
        let mut stream = towline_shim_api::connect(&pod.ready.socket).unwrap();
        for request in requests {
            frame::write(&mut stream, request).unwrap();
        }
        requests
            .iter()
            .map(|_| frame::read::<Response>(&mut stream).unwrap().unwrap())
            .collect::<Vec<_>>()
    };
    let code = |response: &Response| match response {
        Response::Failure(failure) => failure.code,
        other => panic!("{other:?}"),
    };
    let list = serde_json::to_value(Request::List).unwrap();
    let hello = |oldest, newest| serde_json::to_value(Request::Hello { oldest, newest }).unwrap();
    assert_eq!(
        code(&ask(std::slice::from_ref(&list))[0]),
        FailureCode::BadRequest
    );
    assert_eq!(code(&ask(&[hello(98, 99)])[0]), FailureCode::Version);
    let unknown = serde_json::json!({"request": "fly"});
    let answers = ask(&[hello(1, 99), unknown, list]);
    assert!(matches!(&answers[0], Response::Hello(hello) if hello.version == 1));
    assert_eq!(code(&answers[1]), FailureCode::BadRequest);
    assert!(matches!(&answers[2], Response::List { containers } if containers.is_empty()));
    // Rubbish closes the connection and nothing else.
    let mut stream = towline_shim_api::connect(&pod.ready.socket).unwrap();
    std::io::Write::write_all(&mut stream, &[0xff; 64]).unwrap();
    assert!(frame::read::<Response>(&mut stream).unwrap().is_none());
    let client = pod.client();
    assert_eq!(client.hello().pid, pod.ready.pid);
    let error = pod.client().state("none").unwrap_err();
    assert!(matches!(error, ClientError::Failure(_)));
    pod.shut_down();
}

#[test]
fn it_works_where_all_cgroups_are_of_version_two() {
    if !towline_sys::testing::need_root() {
        return;
    }
    towline_sys::testing::in_mount_namespace(|| {
        let cgroups = "/sys/fs/cgroup";
        towline_sys::mount::unmount_under(cgroups).unwrap();
        nix::mount::mount(
            Some("cgroup2"),
            cgroups,
            Some("cgroup2"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let Some(pod) = Pod::new() else { return };
        pod.run("a", &["sleep", "1000"]);
        assert_eq!(pod.exec("a", &["true"]).exit.code, 0);
        assert!(pod.client().stats("a").is_ok());
        assert_eq!(pod.processes().len(), 1);
        pod.client().delete("a", true).unwrap();
        pod.shut_down();
    });
}

/// With all that a kubelet and containerd put into a container's spec.
fn kubernetes_spec(pod: &Pod, args: &[&str]) -> serde_json::Value {
    let mut spec = pod.spec("a", args);
    std::os::unix::fs::symlink("busybox", pod.rootfs("a").join("bin/touch")).unwrap();
    let hosts = pod.dir.path().join("hosts");
    std::fs::write(&hosts, "1.2.3.4 hosts\n").unwrap();
    spec["root"]["readonly"] = json!(true);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 0, "additionalGids": [0, 5]});
    let safe = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&safe[..], more].concat();
    spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": with(&["mode=1777", "size=65536k"])},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": with(&["ro"])},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": with(&["relatime", "ro"])},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
        {"destination": "/etc/hosts", "type": "bind", "source": hosts,
         "options": ["rbind", "rprivate", "rw"]},
    ]);
    let names = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ];
    let names = names.map(|name| format!("CAP_{name}"));
    spec["process"]["capabilities"] =
        json!({"bounding": names, "effective": names, "permitted": names});
    spec["process"]["noNewPrivileges"] = json!(false);
    spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]);
    spec["linux"]["maskedPaths"] = json!([
        "/proc/asound",
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap"
    ]);
    spec["linux"]["readonlyPaths"] = json!([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger"
    ]);
    spec["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 64 << 20},
        "cpu": {"shares": 102, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 100},
    });
    spec
}

#[test]
fn a_spec_as_kubernetes_asks_for_runs() {
    for host_network in [false, true] {
        let options = Options {
            host_network,
            ..Options::default()
        };
        let Some(pod) = Pod::with(options) else {
            return;
        };
        let script = "id; ls /dev; cat /etc/hosts; cat /sys/kernel/mm/transparent_hugepage/enabled \
                      >/dev/null && echo sys; touch /x || echo read-only; touch /tmp/x && echo tmp; \
                      echo x > /dev/null && echo null; cat /proc/self/cgroup >/dev/null && echo cgroup; \
                      ls /proc/sys/kernel >/dev/null && echo proc; cat /proc/keys; ls /dev/shm && echo shm";
        let spec = kubernetes_spec(&pod, &["sh", "-c", script]);
        pod.run_spec("a", &spec);
        let exit = pod.wait("a").exit.unwrap();
        let log = pod.log("a").join("\n");
        assert_eq!(exit.code, 0, "{log}");
        for want in [
            "uid=1000 gid=0",
            "1.2.3.4 hosts",
            "F sys",
            "F read-only",
            "F tmp",
            "F null",
            "F cgroup",
            "F proc",
            "F shm",
            "F urandom",
            "F ptmx",
            "F mqueue",
        ] {
            assert!(log.contains(want), "{want}: {log}");
        }
        pod.shut_down();
    }
}
