//! A container's life: made, started, ended, deleted, and nothing left.

use towline_shim_api::{ClientError, FailureCode, Status};

use crate::pod::{Pod, is_zombie, poll};

#[test]
fn a_container_runs_and_its_state_is_told_and_saved() {
    let Some(pod) = Pod::new() else { return };
    let mut client = pod.client();
    let spec = pod.spec("a", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let created = client.create(pod.bundle("a", &spec)).unwrap();
    assert_eq!(created.status, Status::Created);
    assert!(created.pid > 0 && created.started_at.is_none());
    let started = client.start("a").unwrap();
    assert_eq!(started.status, Status::Running);
    let ended = pod.wait("a");
    let exit = ended.exit.clone().unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert!(created.created_at <= started.started_at.unwrap());
    assert!(started.started_at.unwrap() <= exit.finished_at);
    let mut log = pod.log("a");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);

    let saved = std::fs::read(pod.state_dir().join("containers/a.json")).unwrap();
    let saved: towline_shim_api::ContainerState = serde_json::from_slice(&saved).unwrap();
    assert_eq!(saved, ended);
    assert_eq!(client.list().unwrap(), [ended]);
    client.delete("a", false).unwrap();
    assert!(client.list().unwrap().is_empty());
    client.delete("a", false).unwrap();
    pod.shut_down();
}

#[test]
fn wrong_turns_are_refused() {
    let Some(pod) = Pod::new() else { return };
    let mut client = pod.client();
    let code = |result: Result<_, ClientError>| match result {
        Err(ClientError::Failure(failure)) => failure.code,
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("it was allowed"),
    };
    assert_eq!(code(client.start("a").map(drop)), FailureCode::NotFound);
    pod.run("a", &["sleep", "1000"]);
    let again = pod.bundle("a", &pod.spec("a", &["true"]));
    assert_eq!(
        code(client.create(again).map(drop)),
        FailureCode::AlreadyExists
    );
    assert_eq!(code(client.start("a").map(drop)), FailureCode::WrongState);
    assert_eq!(code(client.delete("a", false)), FailureCode::WrongState);
    let mut bad = pod.bundle("b", &pod.spec("b", &["true"]));
    bad.id = "../b".into();
    assert_eq!(code(client.create(bad).map(drop)), FailureCode::BadRequest);
    client.delete("a", true).unwrap();
    pod.shut_down();
}

#[test]
fn a_hundred_containers_leave_nothing() {
    let Some(pod) = Pod::new() else { return };
    let fds = || {
        std::fs::read_dir(format!("/proc/{}/fd", pod.ready.pid))
            .unwrap()
            .count()
    };
    pod.run_to_end("first", &["true"]);
    pod.client().delete("first", false).unwrap();
    let before = fds();
    for round in 0..100 {
        let id = format!("c{round}");
        let state = pod.run_to_end(&id, &["true"]);
        assert_eq!(state.exit.unwrap().code, 0);
        pod.client().delete(&id, false).unwrap();
    }
    poll(|| fds() <= before);
    let children = format!("/proc/{0}/task/{0}/children", pod.ready.pid);
    assert_eq!(std::fs::read_to_string(children).unwrap(), "");
    let state = pod.state_dir();
    for dir in ["oci", "bundles", "containers"] {
        assert_eq!(
            std::fs::read_dir(state.join(dir)).unwrap().count(),
            0,
            "{dir}"
        );
    }
    pod.shut_down();
}

#[test]
fn the_shim_outlives_its_clients_and_who_started_it() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    // A client that is killed in the middle of waiting.
    let mut child = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "life::waiting_client", "--ignored"])
        .env("TOWLINE_TEST_SOCKET", &pod.ready.socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pod.ready.pid)).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
    assert_eq!(fields[4], pod.ready.pid.to_string(), "a session of its own");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(pod.client().state("a").unwrap().status, Status::Running);
    pod.shut_down();
}

#[test]
#[ignore = "started by another test"]
fn waiting_client() {
    let Some(socket) = std::env::var_os("TOWLINE_TEST_SOCKET") else {
        return;
    };
    let mut client = towline_shim_api::Client::connect(socket).unwrap();
    client.wait("a", None).unwrap();
}

#[test]
fn shutdown_ends_what_runs_and_term_does_too() {
    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    pod.client()
        .create(pod.bundle("b", &pod.spec("b", &["true"])))
        .unwrap();
    pod.shut_down();

    let Some(pod) = Pod::new() else { return };
    pod.run("a", &["sleep", "1000"]);
    towline_sys::proc::send_signal(pod.ready.pid, 15).unwrap();
    poll(|| !pod.ready.socket.exists());
    poll(|| {
        is_zombie(pod.ready.pid)
            || !std::path::Path::new(&format!("/proc/{}", pod.ready.pid)).exists()
    });
    assert!(
        !towline_sys::cgroup::Cgroup::new(&pod.cgroup)
            .unwrap()
            .exists()
    );
}

#[test]
#[ignore = "figures for people"]
fn figures() {
    let Some(pod) = Pod::new() else { return };
    let begun = std::time::Instant::now();
    for round in 0..20 {
        let id = format!("c{round}");
        pod.run_to_end(&id, &["true"]);
        pod.client().delete(&id, false).unwrap();
    }
    eprintln!("a container's whole life: {:?}", begun.elapsed() / 20);
    pod.run("a", &["sleep", "1000"]);
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        pod.exec("a", &["true"]);
    }
    eprintln!("an exec: {:?}", begun.elapsed() / 20);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.ready.pid)).unwrap();
    for line in status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"))
    {
        eprintln!("{line}");
    }
    pod.shut_down();
}
