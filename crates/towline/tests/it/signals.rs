//! A signal ends a lab or a demo as tidily as their own end does: no pod, mount, link, cgroup or folder stays.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use towline_sys::cgroup::Cgroup;
use towline_sys::testing::need_root;

use crate::support::containerd::need_containerd;
use crate::support::eventually;
use crate::support::node::nothing_is_left;
use crate::support::program::{Guard, signal, text, towline};

/// How long a busy machine may take to start pods, and to end them.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_lab_leaves_nothing_when_it_is_told_to_end_in_the_middle() {
    if !need_root() {
        return;
    }
    let run = ["lab", "run", "tag-typo", "no-login", "connection-timeout"];
    for name in ["TERM", "INT"] {
        ends_tidily(&run, name, "lab", |_| {});
    }
    ends_tidily(&["lab", "run", "tag-typo", "--keep"], "TERM", "lab", |_| {});
}

#[test]
fn a_lab_on_containerd_leaves_nothing_either() {
    if !need_containerd() {
        return;
    }
    let run = [
        "lab",
        "run",
        "--runtime",
        "containerd",
        "tag-typo",
        "no-login",
        "connection-timeout",
    ];
    let mut network = String::new();
    ends_tidily(&run, "TERM", "lab", |node| {
        let file = node.join("containerd/cni/10.conflist");
        network = std::fs::read_to_string(file).unwrap();
    });
    let network: serde_json::Value = serde_json::from_str(&network).unwrap();
    let name = network["name"].as_str().unwrap();
    assert!(!Path::new("/sys/class/net").join(name).exists(), "{name}");
    let cgroup = Cgroup::new(&format!("/{name}")).unwrap();
    assert!(!cgroup.exists(), "the cgroup {name} is left");
}

#[test]
fn a_demo_leaves_nothing_when_it_is_told_to_end() {
    if !need_root() {
        return;
    }
    for name in ["TERM", "INT"] {
        ends_tidily(&["demo"], name, "", |_| {});
    }
}

/// Runs it until a pod of the node below its folder has a shim, sends the signal, and looks at what is left.
fn ends_tidily(args: &[&str], name: &str, node: &str, mut see: impl FnMut(&Path)) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut running = Guard::spawn(
        towline()
            .args(args)
            .stdout(log.reopen().unwrap())
            .stderr(Stdio::from(log.reopen().unwrap())),
    );
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    let folder = eventually("a pod has a shim", PATIENCE.as_secs(), || {
        let folder = folder_of(running.0.id()).ok_or_else(said)?;
        shims(&folder).map(|()| folder).ok_or_else(said)
    });
    see(&folder.join(node));
    signal(running.0.id(), name);
    let status = eventually("it ends", PATIENCE.as_secs(), || {
        running.0.try_wait().unwrap().ok_or_else(said)
    });
    assert!(status.code().is_some(), "{status}: {}", said());
    assert!(!said().contains("in time"), "{}", said());
    nothing_is_left(&folder);
    nothing_is_left(&folder.join(node));
    assert!(!folder.exists(), "{} is left: {}", folder.display(), said());
}

/// The folder that a process of this id made for itself.
fn folder_of(pid: u32) -> Option<PathBuf> {
    let prefix = format!("towline-{pid}-");
    let mut folders = std::fs::read_dir(std::env::temp_dir()).ok()?.flatten();
    folders
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
}

/// Whether a process that holds pods belongs to this folder.
fn shims(folder: &Path) -> Option<()> {
    let folder = folder.to_str()?;
    let processes = Command::new("ps").args(["-eo", "args"]).output().ok()?;
    text(&processes)
        .lines()
        .any(|line| line.contains(folder) && line.contains("shim"))
        .then_some(())
}
