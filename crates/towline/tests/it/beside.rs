//! `towline pull` beside a node, or beside the runtime alone, that owns the images: it goes through it, and tells as much as a pull of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use towline_sys::testing::need_root;

use crate::pulling::{ended, large};
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::program::{Guard, text, towline};
use crate::support::registry::{OurRegistry, push};

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = towline();
    command.args(args).arg("--data-dir").arg(data);
    command.env("HOME", data).env_remove("TOWLINE_CREDS");
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    command(data, args).output().unwrap()
}

/// The events of a pull that goes well.
fn events(data: &Path, image: &str) -> Vec<Value> {
    let output = run(data, &["pull", "-o", "json", image]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    events.collect()
}

/// What would be done, is done, and is told while it is.
fn pulled_through(data: &Path, registry: &OurRegistry) {
    let image = registry.image("big:1");
    let plan = run(data, &["pull", "--dry-run", "-o", "json", &image]);
    assert!(plan.status.success(), "{}", text(&plan));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let total = plan[0]["total"].as_u64().unwrap();
    assert_eq!(plan[0]["toFetch"].as_u64(), Some(total), "{plan}");
    assert_eq!(plan[0]["layers"][0]["present"], false);

    let events = events(data, &image);
    let phases: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "phase")
        .collect();
    assert_eq!(phases.last().unwrap()["phase"], "done", "{events:?}");
    let layers: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "layer")
        .collect();
    assert_eq!(
        layers.last().unwrap()["layer"]["phase"],
        "done",
        "{events:?}"
    );
    let [ended] = ended(&events)[..] else {
        panic!("it ends once: {events:?}");
    };
    assert!(ended["size"].as_u64() > Some(total), "{ended}");

    let plan = run(data, &["pull", "--dry-run", &image]);
    assert!(text(&plan).contains("here already"), "{}", text(&plan));
    // What the owner was told at its start is not changed from here.
    for option in ["--plain-http", "--keep-blobs", "--platform=linux/arm64"] {
        let refused = run(data, &["pull", option, &image]);
        assert_eq!(refused.status.code(), Some(64), "{}", text(&refused));
        assert!(
            text(&refused).contains("another --data-dir"),
            "{}",
            text(&refused)
        );
    }
    let missing = registry.image("big:none");
    for args in [
        &["pull", "-o", "json", &missing][..],
        &["pull", "--dry-run", "-o", "json", &missing],
    ] {
        let failed = run(data, args);
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
        let said = String::from_utf8_lossy(&failed.stdout).into_owned();
        assert!(
            said.contains("TagNotFound") && said.contains("\"resolve\""),
            "{said}"
        );
    }
}

#[test]
fn a_pull_beside_a_node_goes_through_it_and_tells_as_much() {
    if !need_root() {
        return;
    }
    let registry = OurRegistry::start();
    push(&large(48, 7), registry.address, "big", "1", None);
    let node = Node::up_with(&["--keep-blobs"]);
    pulled_through(&node.data(), &registry);
    kept_its_layer(&node.data());
}

/// What the owner was told to keep is kept of what others have it pull.
fn kept_its_layer(data: &Path) {
    let output = run(data, &["df", "-o", "json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let kept = rows
        .iter()
        .find(|row| row["what"] == "kept compressed layers");
    assert_eq!(kept.unwrap()["count"], 1, "{rows:?}");
}

/// A runtime that starts has its images before it can say where it is asked: who waits for them asks it then.
fn found_late(data: &Path, image: &str) {
    let place = data.join("runtime/owner");
    let hidden = place.with_extension("hidden");
    std::fs::rename(&place, &hidden).unwrap();
    let mut pull = command(data, &["pull", image]);
    let mut pull = pull
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(pull.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    std::fs::rename(&hidden, &place).unwrap();
    assert!(line.contains("waits for process"), "{line}");
    said.read_to_string(&mut line).unwrap();
    assert!(pull.wait().unwrap().success(), "{line}");
}

/// The runtime alone owns its directory as a node does: nobody waits for it to end.
#[test]
fn a_pull_beside_the_runtime_alone_goes_through_it() {
    if !need_root() {
        return;
    }
    let registry = OurRegistry::start();
    push(&large(48, 8), registry.address, "big", "1", None);
    let folder = tempfile::Builder::new().prefix("twl").tempdir().unwrap();
    let (data, socket) = (folder.path().join("data"), folder.path().join("cri.sock"));
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut runtime = towline();
    runtime
        .arg("runtime")
        .arg("--root")
        .arg(data.join("runtime"));
    runtime.arg("--state-dir").arg(folder.path().join("pods"));
    runtime.arg("--socket").arg(&socket).arg("--keep-blobs");
    runtime.args(["--bridge", &format!("twlb{}", std::process::id() % 100_000)]);
    let mut runtime = Guard::spawn(
        runtime
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log)),
    );
    eventually("the runtime listens", 60, || {
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        let connected = std::os::unix::net::UnixStream::connect(&socket);
        connected.map_err(|error| format!("{error}: {}", log()))
    });
    pulled_through(&data, &registry);
    let list = run(&data, &["images"]);
    assert!(
        text(&list).contains(&registry.image("big:1")),
        "{}",
        text(&list)
    );

    kept_its_layer(&data);
    found_late(&data, &registry.image("big:1"));

    // Once it has ended, the directory is anybody's; what a killed one leaves there is in nobody's way, nor leads to another that has come
    // to its socket's path.
    let place = data.join("runtime/owner");
    let left = std::fs::read(&place).unwrap();
    let ended = runtime.interrupt(Duration::from_secs(60));
    assert!(ended.success(), "{ended}");
    assert!(!place.exists());
    std::fs::write(&place, left).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let list = run(&data, &["images"]);
    assert!(
        text(&list).contains(&registry.image("big:1")),
        "{}",
        text(&list)
    );
}
