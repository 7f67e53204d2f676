//! Who is asking: every endpoint wants to know.

use std::io::Read as _;
use std::process::Command;

use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::program::text;
use crate::support::registry::{hello, push};

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
    use std::os::unix::fs::MetadataExt as _;
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
