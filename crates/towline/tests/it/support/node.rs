//! A node: `towline up` in a folder of its own, and kubectl against it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::program::{Guard, text, towline};

/// A running node. Dropping it stops it.
pub(crate) struct Node {
    pub(crate) process: Guard,
    pub(crate) folder: TempDir,
    pub(crate) facts: Value,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub(crate) fn up() -> Self {
        Self::up_with(&[])
    }

    pub(crate) fn up_with(more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("twl").tempdir().unwrap();
        Self::up_in(folder, more)
    }

    /// Starts a node in a folder that may have been a node's before.
    pub(crate) fn up_in(folder: TempDir, more: &[&str]) -> Self {
        let data = folder.path().join("data");
        let log = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let mut command = towline();
        command.args([
            "-v",
            "up",
            "--node-name",
            "node1",
            "--data-dir",
            data.to_str().unwrap(),
        ]);
        for listen in ["--api-listen", "--registry-listen", "--kubelet-listen"] {
            if !more.contains(&listen) {
                command.args([listen, "127.0.0.1:0"]);
            }
        }
        let process = Guard::spawn(
            command
                .args(more)
                .stdout(log("stdout"))
                .stderr(Stdio::from(log("stderr"))),
        );
        let mut node = Self {
            process,
            folder,
            facts: Value::Null,
        };
        node.facts = eventually("the node is ready", 60, || {
            if let Some(status) = node.process.0.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", node.log());
            }
            let text = std::fs::read(node.data().join("node.json"))
                .map_err(|error| format!("{error}; {}", node.log()))?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        });
        node
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data().join("kubeconfig")
    }

    pub(crate) fn address(&self, part: &str) -> SocketAddr {
        self.facts[part].as_str().unwrap().parse().unwrap()
    }

    /// kubectl against this node; panics when it fails.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(
            output.status.success(),
            "kubectl {args:?}: {}",
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Output {
        kubectl("kubectl", &self.kubeconfig())
            .args(args)
            .output()
            .unwrap()
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) {
        let mut child = kubectl("kubectl", &self.kubeconfig())
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl apply: {}", text(&output));
    }

    /// Applies a pod of one container `app`.
    pub(crate) fn run(&self, name: &str, image: &str, more: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: app, image: \"{image}\"}}\n{more}"
        ));
    }

    /// Waits until a pod's STATUS column is this.
    pub(crate) fn wait_status(&self, pod: &str, status: &str, seconds: u64) {
        eventually(&format!("pod {pod} is {status}"), seconds, || {
            let output = self.try_kubectl(&["get", "pod", pod, "--no-headers"]);
            let line = text(&output);
            if line.split_whitespace().nth(2) == Some(status) {
                Ok(())
            } else {
                Err(format!("{line}\n{}", self.tail()))
            }
        });
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Reason and message of a pod's events, in order of their last time.
    pub(crate) fn events(&self, pod: &str) -> Vec<(String, String)> {
        let list = self.kubectl(&[
            "get",
            "events",
            "--field-selector",
            &format!("involvedObject.name={pod}"),
            "-o",
            "json",
        ]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| (word(&event["reason"]), word(&event["message"])))
            .collect()
    }

    /// The program against this node.
    pub(crate) fn towline(&self, args: &[&str]) -> Output {
        towline()
            .args(args)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .output()
            .unwrap()
    }
}

/// kubectl with its own home, so that it reads nobody's settings.
pub(crate) fn kubectl(program: &str, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", kubeconfig.parent().unwrap().join("home"));
    command
}

/// No process, mount, network namespace, link or cgroup that belongs to this data directory.
pub(crate) fn nothing_is_left(data: &Path) {
    let data = data.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(data)).collect();
    assert!(left.is_empty(), "mounts are left: {left:?}");
    let processes = Command::new("ps")
        .args(["-eo", "pid,args"])
        .output()
        .unwrap();
    let left: Vec<String> = text(&processes)
        .lines()
        .filter(|line| line.contains(data))
        .map(str::to_owned)
        .collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    let digest = towline_oci::Digest::of(data.as_bytes());
    let bridge = format!("/sys/class/net/towline{}", &digest.hex()[..6]);
    assert!(!Path::new(&bridge).exists(), "the bridge is left");
}
