//! Other pods as witnesses: what runs and what fails on other nodes, read once however many pods are asked about.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use towline_sys::testing::need_program;

use crate::support::eventually;
use crate::support::node::kubectl;
use crate::support::program::{Guard, text, towline};
use crate::support::schema;

/// An API server alone: nodes and statuses are what the test says they are.
struct Cluster {
    folder: tempfile::TempDir,
    _api: Guard,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        let api = Guard::spawn(
            towline()
                .args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &data])
                .stderr(Stdio::null()),
        );
        let cluster = Self { folder, _api: api };
        // No controllers run here to make it.
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        eventually("the API server takes objects", 30, || {
            let output = cluster.try_apply(&account);
            if output.status.success() {
                Ok(())
            } else {
                Err(text(&output))
            }
        });
        cluster
    }

    fn admin(&self) -> std::path::PathBuf {
        self.folder.path().join("kubeconfigs/admin")
    }

    fn write(&self, value: &Value) -> String {
        let file: &Path = &self.folder.path().join("object.json");
        std::fs::write(file, value.to_string()).unwrap();
        file.display().to_string()
    }

    fn try_apply(&self, value: &Value) -> Output {
        let file = self.write(value);
        kubectl("kubectl", &self.admin())
            .args(["apply", "--validate=false", "-f", &file])
            .output()
            .unwrap()
    }

    fn node_is_ready(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let output = self.try_apply(&node);
        assert!(output.status.success(), "{}", text(&output));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let output = kubectl("kubectl", &self.admin())
            .args(["patch", "node", name, "--subresource=status"])
            .args(["--type=merge", "-p", &ready.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// A pod on this node whose only container is in this state.
    fn pod(&self, name: &str, node: &str, image: &str, state: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": image}]},
        });
        let output = self.try_apply(&pod);
        assert!(output.status.success(), "{}", text(&output));
        let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
            "name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]}});
        let output = kubectl("kubectl", &self.admin())
            .args([
                "patch",
                "pod",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
            ])
            .arg(status.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    fn why(&self, args: &[&str]) -> Value {
        let output = towline()
            .args(["why", "-o", "json"])
            .args(args)
            .arg("--kubeconfig")
            .arg(self.admin())
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        schema::check(&answer);
        answer
    }

    /// How often pods were listed, by the API server's own count.
    fn lists_of_pods(&self) -> u64 {
        let output = kubectl("kubectl", &self.admin())
            .args(["get", "--raw", "/metrics"])
            .output()
            .unwrap();
        let counts = text(&output).to_lowercase();
        let lists = counts.lines().filter(|line| {
            line.starts_with("apiserver_request_total{")
                && line.contains("resource=\"pods\"")
                && line.contains("verb=\"list\"")
        });
        lists
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

fn waiting() -> Value {
    json!({"waiting": {"reason": "ErrImagePull", "message": "failed to pull and unpack image \"registry.nowhere.invalid/x:v1\": dial tcp 10.0.0.1:443: i/o timeout"}})
}

#[test]
fn what_runs_elsewhere_is_evidence_for_a_pod_a_namespace_and_the_cluster() {
    if need_program("kubectl").is_none() {
        return;
    }
    let cluster = Cluster::start();
    let image = "registry.nowhere.invalid/x:v1";
    let running = json!({"running": {"startedAt": "2026-11-30T12:00:00Z"}});
    cluster.pod("web-1", "a", image, &waiting());
    cluster.pod("web-2", "b", image, &running);
    let want = "the same image runs on node b (pod default/web-2 since 2026-11-30T12:00:00Z): its name was right when it was pulled there; it fails on node a alone";
    let one = cluster.why(&["pod/web-1"]);
    assert!(one["evidence"].to_string().contains(want), "{one}");
    for args in [&["-n", "default"][..], &["-A"]] {
        let all = cluster.why(args);
        let found = all["items"][0]["evidence"].to_string();
        assert!(found.contains(want), "{all}");
    }

    // Another image of the registry that runs tells that its way is open from there.
    cluster.pod("db-1", "a", "registry.nowhere.invalid/y:v1", &waiting());
    let other = cluster.why(&["pod/db-1"]);
    let found = other["evidence"].to_string();
    assert!(
        found.contains("an image of registry.nowhere.invalid runs on node b (pod default/web-2"),
        "{other}"
    );

    // Forty broken pods cost as many lists as one.
    for number in 0..40 {
        cluster.pod(&format!("more-{number}"), "c", image, &waiting());
    }
    let before = cluster.lists_of_pods();
    let all = cluster.why(&["-A"]);
    assert_eq!(all["broken"], 42, "{all}");
    let asked = cluster.lists_of_pods() - before;
    assert_eq!(asked, 1, "one list for all");
    let found = all["items"][0]["evidence"].to_string();
    assert!(found.contains("it fails on node"), "{found}");
}

#[test]
fn a_nodes_clock_is_read_from_its_lease_where_dates_decide() {
    if need_program("kubectl").is_none() {
        return;
    }
    let cluster = Cluster::start();
    let expired = json!({"waiting": {"reason": "ErrImagePull", "message": "failed to pull and unpack image \"registry.nowhere.invalid/x:v1\": failed to resolve reference \"registry.nowhere.invalid/x:v1\": failed to do request: Head \"https://registry.nowhere.invalid/v2/x/manifests/v1\": tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2020-01-01T00:00:00Z is before 2026-06-01T00:00:00Z"}});
    cluster.pod("web-1", "a", "registry.nowhere.invalid/x:v1", &expired);
    let without = cluster.why(&["pod/web-1"]);
    let unread = without["unread"].to_string();
    assert!(
        unread.contains("the lease of node a could not be read (404"),
        "{without}"
    );
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "a", "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": "a", "renewTime": "2020-01-01T00:00:05.000000Z"},
    });
    let space =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}});
    // It may be there from the start.
    cluster.try_apply(&space);
    let output = cluster.try_apply(&lease);
    assert!(output.status.success(), "{}", text(&output));
    // A node that died renews no lease either, which looks like a clock that is behind.
    let dead = cluster.why(&["pod/web-1"]);
    let unread = dead["unread"].to_string();
    assert!(
        unread.contains("the node is not known to be ready"),
        "{dead}"
    );
    cluster.node_is_ready("a");
    let found = cluster.why(&["pod/web-1"]);
    assert_eq!(found["cause"], "NodeClockSkew", "{found}");
    let evidence = found["evidence"].to_string();
    assert!(
        evidence.contains("node a dates its lease 2020-01-01T00:00:05Z while"),
        "{evidence}"
    );
}
