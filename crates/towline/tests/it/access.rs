//! Who is asking: every endpoint wants to know.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::{Node, kubectl};
use crate::support::program::{Guard, text, towline};
use crate::support::registry::push;

/// The status that an HTTPS request gets, certificate unchecked.
fn status(url: &str, token: Option<&str>) -> String {
    let mut command = Command::new("curl");
    command.args([
        "-ks",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "5",
        url,
    ]);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    text(&command.output().unwrap())
}

#[test]
fn unauthenticated_callers_get_401_but_for_health() {
    if !need_root() || need_program("curl").is_none() {
        return;
    }
    let node = Node::up();
    let (api, kubelet) = (node.address("api"), node.address("kubelet"));
    for path in [
        "/api",
        "/apis",
        "/version",
        "/api/v1/pods",
        "/api/v1/namespaces/default/secrets",
        "/openapi/v3",
        "/metrics",
        "/nothing",
    ] {
        assert_eq!(
            status(&format!("https://{api}{path}"), None),
            "401",
            "{path}"
        );
        assert_eq!(
            status(&format!("https://{api}{path}"), Some("forged")),
            "401",
            "{path}"
        );
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(
            status(&format!("https://{api}{path}"), None),
            "200",
            "{path}"
        );
    }
    for path in [
        "/pods",
        "/metrics",
        "/containerLogs/default/x/y",
        "/nothing",
    ] {
        assert_eq!(
            status(&format!("https://{kubelet}{path}"), None),
            "401",
            "{path}"
        );
        assert_eq!(
            status(&format!("https://{kubelet}{path}"), Some("forged")),
            "401",
            "{path}"
        );
    }
    assert_eq!(status(&format!("https://{kubelet}/healthz"), None), "200");
}

#[test]
fn a_containers_own_token_reads_no_secret() {
    if !need_root() || need_program("kubectl").is_none() || need_program("curl").is_none() {
        return;
    }
    let node = Node::up();
    let image = towline_lab::image::guest()
        .cmd(["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"])
        .build();
    push(&image, node.address("registry"), "lib/token", "1", None);
    node.kubectl(&[
        "create",
        "secret",
        "generic",
        "treasure",
        "--from-literal=a=b",
    ]);
    node.run(
        "thief",
        &format!("{}/lib/token:1", node.address("registry")),
        "  restartPolicy: Never\n",
    );
    let token = eventually("the pod prints its token", 20, || {
        let log = text(&node.try_kubectl(&["logs", "thief"]));
        if log.trim().split('.').count() == 3 {
            Ok(log.trim().to_owned())
        } else {
            Err(log)
        }
    });
    let api = node.address("api");
    let asked = |path: &str| status(&format!("https://{api}{path}"), Some(&token));
    assert_eq!(asked("/api/v1/namespaces/default/secrets/treasure"), "403");
    assert_eq!(asked("/api/v1/namespaces/default/secrets"), "403");
    assert_eq!(asked("/api/v1/secrets"), "403");
    assert_eq!(asked("/api/v1/namespaces/default/pods"), "403");
    assert_eq!(asked("/version"), "200", "but it is known who asks");
    let kubelet = node.address("kubelet");
    assert_eq!(
        status(&format!("https://{kubelet}/pods"), Some(&token)),
        "403"
    );

    node.kubectl(&["delete", "pod", "thief", "--timeout=20s"]);
    eventually(
        "the token of a pod that is gone is refused",
        5,
        || match asked("/version").as_str() {
            "401" => Ok(()),
            other => Err(other.to_owned()),
        },
    );
}

#[test]
fn sockets_and_keys_are_for_the_owner_alone() {
    if !need_root() {
        return;
    }
    let node = Node::up();
    for file in [
        node.kubeconfig(),
        node.facts["cri"].as_str().unwrap().into(),
    ] {
        let mode = std::fs::metadata(&file).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.display());
    }
    let mut text = String::new();
    std::fs::File::open(node.kubeconfig())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains("client-key-data"));
    assert_eq!(std::fs::metadata(node.data()).unwrap().mode() & 0o077, 0);
}

#[test]
fn a_node_reads_only_the_secrets_of_its_own_pods() {
    if need_program("kubectl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let _server = Guard::spawn(
        towline()
            .args([
                "apiserver",
                "--listen",
                "127.0.0.1:0",
                "--node",
                "n1",
                "--node",
                "n2",
                "--data-dir",
                data.to_str().unwrap(),
            ])
            .stderr(log),
    );
    let kubectl = |user: &str, args: &[&str]| {
        let output = kubectl("kubectl", &data.join("kubeconfigs").join(user))
            .args(args)
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    eventually("the API server answers", 20, || {
        match kubectl("admin", &["get", "namespaces"]) {
            (true, _) => Ok(()),
            (false, error) => Err(error),
        }
    });
    kubectl("admin", &["create", "serviceaccount", "default"]);
    kubectl(
        "admin",
        &["create", "secret", "generic", "mine", "--from-literal=a=b"],
    );
    let pod = folder.path().join("pod.yaml");
    std::fs::write(
        &pod,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  nodeName: n1\n  imagePullSecrets: [{name: mine}]\n  containers: [{name: a, image: b}]\n",
    )
    .unwrap();
    let (made, error) = kubectl("admin", &["create", "-f", pod.to_str().unwrap()]);
    assert!(made, "{error}");
    let (ok, answer) = kubectl("node-n1", &["get", "secret", "mine"]);
    assert!(ok, "the node of the pod reads its secret: {answer}");
    let (ok, answer) = kubectl("node-n2", &["get", "secret", "mine"]);
    assert!(
        !ok && answer.contains("forbidden"),
        "another node does not: {answer}"
    );
    let (ok, answer) = kubectl("node-n1", &["get", "secrets", "-A"]);
    assert!(
        !ok && answer.contains("forbidden"),
        "no node lists all: {answer}"
    );
    let (ok, answer) = kubectl("scheduler", &["get", "secret", "mine"]);
    assert!(
        !ok && answer.contains("forbidden"),
        "the scheduler reads none: {answer}"
    );
}
