//! The pod's namespaces, and the greeting.

use std::collections::BTreeMap;

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
    assert!(listing.contains("towline shim init"), "{listing}");
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
