//! containerd in our runtime's place: it pulls from our registry, and our kubelet runs pods on it and explains why they do not run.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use towline_lab::image::{self, Layer};
use towline_sys::testing::need_program;

use crate::support::containerd::{Containerd, assert_nothing_left, need_containerd};
use crate::support::eventually;
use crate::support::node::kubectl;
use crate::support::program::{Guard, part, text, towline};
use crate::support::registry::{DockerRegistry, OurRegistry, hello, push};

/// What a pod shows whose image does not come.
const FAILED: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

/// API server, scheduler, controllers and kubelet as programs of their own, the kubelet on containerd. Dropped in this order.
struct Cluster {
    kubelet: Guard,
    containerd: Containerd,
    _others: [Guard; 3],
    registry: OurRegistry,
    folder: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let registry = OurRegistry::start();
        let containerd = Containerd::start(registry.address);
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("api");
        let file = |name: &str| data.join(name).display().to_string();
        let apiserver = part(
            folder.path(),
            "apiserver",
            &[
                "--data-dir",
                data.to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--node",
                "n1=127.0.0.1",
            ],
        );
        eventually("the node's kubeconfig is written", 30, || {
            let node = data.join("kubeconfigs/node-n1");
            node.exists().then_some(()).ok_or_else(|| {
                std::fs::read_to_string(folder.path().join("apiserver.log")).unwrap()
            })
        });
        let of = |name: &str| {
            part(
                folder.path(),
                if name == "scheduler" {
                    "scheduler"
                } else {
                    "controllers"
                },
                &["--kubeconfig", &file(&format!("kubeconfigs/{name}"))],
            )
        };
        let (scheduler, controllers) = (of("scheduler"), of("controllers"));
        let kubelet = part(
            folder.path(),
            "kubelet",
            &[
                "--kubeconfig",
                &file("kubeconfigs/node-n1"),
                "--node-name",
                "n1",
                "--container-runtime-endpoint",
                &containerd.endpoint(),
                // What it mounts is below containerd's folder, which is unmounted as a whole.
                "--root-dir",
                containerd.folder.path().join("kubelet").to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--tls-cert-file",
                &file("kubeconfigs/node-n1.crt"),
                "--tls-private-key-file",
                &file("kubeconfigs/node-n1.key"),
                "--client-ca-file",
                &file("pki/ca.crt"),
                "--cgroup-root",
                containerd.cgroup(),
            ],
        );
        Self {
            kubelet,
            containerd,
            _others: [scheduler, controllers, apiserver],
            registry,
            folder,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("api/kubeconfigs/admin")
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        kubectl("kubectl", &self.kubeconfig())
            .args(args)
            .output()
            .unwrap()
    }

    /// Makes a pod of one container `app`; the first one waits for the namespace's service account.
    fn run(&self, name: &str, image: &str, host_network: bool) {
        let manifest = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(
            &manifest,
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: {host_network}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: app, image: \"{image}\"}}\n"
            ),
        )
        .unwrap();
        eventually(&format!("pod {name} is made"), 20, || {
            let made = self.kubectl(&["apply", "-f", manifest.to_str().unwrap()]);
            made.status
                .success()
                .then_some(())
                .ok_or_else(|| text(&made))
        });
    }

    /// Waits for one of these; a pull that fails shows two in turn, and one of them briefly.
    fn wait_status(&self, pod: &str, wanted: &[&str]) {
        eventually(&format!("pod {pod} is {wanted:?}"), 90, || {
            let line = text(&self.kubectl(&["get", "pod", pod, "--no-headers"]));
            if line
                .split_whitespace()
                .nth(2)
                .is_some_and(|status| wanted.contains(&status))
            {
                return Ok(());
            }
            let described = text(&self.kubectl(&["describe", "pod", pod]));
            Err(format!("{line}{described}"))
        });
    }

    /// Exit code and answer of `towline why`.
    fn why(&self, pod: &str) -> (Option<i32>, Value) {
        let output = towline()
            .args(["why", &format!("pod/{pod}"), "-o", "json", "--kubeconfig"])
            .arg(self.kubeconfig())
            .output()
            .unwrap();
        let answer = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        (output.status.code(), answer)
    }
}

#[test]
fn containerd_pulls_from_our_registry() {
    if !need_containerd() {
        return;
    }
    let registry = OurRegistry::start();
    let pushed = hello("x");
    push(&pushed, registry.address, "lib/app", "1.0", None);
    let containerd = Containerd::start(registry.address);
    let image = registry.image("lib/app:1.0");
    let pulled = containerd.ctr(&["images", "pull", "--plain-http", &image]);
    assert!(pulled.status.success(), "{}", text(&pulled));
    let listed = text(&containerd.ctr(&["images", "list"]));
    let line = listed.lines().find(|line| line.starts_with(&image));
    assert!(
        line.is_some_and(|line| line.contains(pushed.digest())),
        "the digest is that of what was pushed: {listed}"
    );
    let pulled = containerd.crictl(&["pull", &image]);
    assert!(pulled.status.success(), "{}", text(&pulled));
    let missing = containerd.crictl(&["pull", &registry.image("lib/app:2.0")]);
    assert!(
        !missing.status.success() && text(&missing).contains("not found"),
        "{}",
        text(&missing)
    );
    assert_nothing_left(containerd);
}

#[test]
fn our_kubelet_runs_pods_on_containerd() {
    if !need_containerd() || need_program("kubectl").is_none() {
        return;
    }
    let cluster = Cluster::start();
    let words = hello("from containerd");
    push(&words, cluster.registry.address, "lib/app", "1.0", None);
    let image = cluster.registry.image("lib/app:1.0");
    for (pod, host_network) in [("bridged", false), ("on-the-host", true)] {
        cluster.run(pod, &image, host_network);
        cluster.wait_status(pod, &["Running"]);
        eventually("the log is read through the API server", 30, || {
            let log = text(&cluster.kubectl(&["logs", pod]));
            (log == "from containerd\n").then_some(()).ok_or(log)
        });
    }
    let deleted = cluster.kubectl(&["delete", "pod", "bridged", "on-the-host", "--timeout=30s"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    let Cluster {
        kubelet,
        containerd,
        ..
    } = cluster;
    drop(kubelet);
    assert_nothing_left(containerd);
}

#[test]
fn why_explains_what_containerd_could_not_pull() {
    if !need_containerd()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
        || need_program("htpasswd").is_none()
    {
        return;
    }
    let private = DockerRegistry::with_login();
    private.push(&hello("x"), "team/app", "v1");
    let cluster = Cluster::start();
    push(
        &hello("x"),
        cluster.registry.address,
        "lib/app",
        "v1.0",
        None,
    );

    let typo = cluster.registry.image("lib/app:v1.O");
    cluster.run("typo", &typo, false);
    cluster.wait_status("typo", &FAILED);
    let (code, answer) = cluster.why("typo");
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["cause"], "TagNotFound", "{answer}");
    assert_eq!(answer["step"], "resolve");
    assert_eq!(answer["confidence"], "proven");
    let fix = format!(
        "kubectl -n default set image pod/typo app={}",
        cluster.registry.image("lib/app:v1.0")
    );
    assert_eq!(answer["fixes"][0]["commands"][0], fix.as_str());

    cluster.run(
        "private",
        &format!("{}/team/app:v1", private.address),
        false,
    );
    cluster.wait_status("private", &FAILED);
    let (code, answer) = cluster.why("private");
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["cause"], "NoCredentials", "{answer}");
    assert_eq!(answer["step"], "authenticate");
    // Who is asked without a login does not say whether there is such a repository: the answer leaves that open.
    assert_eq!(answer["confidence"], "likely");
    assert_eq!(answer["alternatives"][0], "RepositoryNotFound");

    // The registry is well and the node's own store is not: which part of it the words leave open. The sandbox is made while
    // containerd is well, so the tag comes later.
    cluster.run("odd", &cluster.registry.image("lib/odd:v1"), false);
    cluster.wait_status("odd", &FAILED);
    cluster.containerd.spoil_snapshots();
    // A layer that is not on the node yet.
    let odd = image::guest()
        .layer(Layer::new().file("odd", "odd"))
        .build();
    push(&odd, cluster.registry.address, "lib/odd", "v1", None);
    eventually("containerd fails in another way", 60, || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
        let message = text(&cluster.kubectl(&["get", "pod", "odd", "-o", path]));
        message
            .contains("not a directory")
            .then_some(())
            .ok_or(message)
    });
    let (code, answer) = cluster.why("odd");
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(answer["cause"], "ContentStoreCorrupt", "{answer}");
    assert_eq!(answer["confidence"], "likely");
    assert_eq!(answer["alternatives"][0], "SnapshotterFailed");
    let evidence: Vec<&str> = answer["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|fact| fact["fact"].as_str())
        .collect();
    for words in ["not a directory", "the replayed pull goes through"] {
        assert!(
            evidence.iter().any(|fact| fact.contains(words)),
            "{words}: {evidence:?}"
        );
    }
}
