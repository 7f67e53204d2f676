//! `towline why --from-node`: the node's own view, its difference from this machine's, and who may have it.

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::node::{Node, kubectl};
use crate::support::program::text;
use crate::support::registry::{DockerRegistry, LOGIN, hello};

fn answer(node: &Node, args: &[&str]) -> Value {
    let output = node.towline(&[&["why", "-o", "json"], args].concat());
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    crate::support::schema::check(&answer);
    answer
}

fn places(answer: &Value) -> Vec<&str> {
    let seen = answer["seen"].as_array().unwrap();
    seen.iter()
        .map(|sight| sight["seenFrom"].as_str().unwrap())
        .collect()
}

#[test]
fn where_the_views_differ_the_nodes_own_decides() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let plain = DockerRegistry::open();
    plain.push(&hello("over TLS"), "team/app", "v1");
    let registry = DockerRegistry::with_tls(&plain);
    let image = format!("{}/team/app:v1", registry.address);
    // The node does not trust the authority that this machine is told to trust.
    let node = Node::up();
    node.run("secure", &image, "");
    node.wait_status("secure", "ErrImagePull", 30);
    let ca = registry.ca();
    let found = answer(&node, &["pod/secure", "--ca", &ca, "--from-node", "node1"]);
    assert_eq!(found["cause"], "TlsUnknownAuthority", "{found}");
    assert_eq!(found["confidence"], "proven", "{found}");
    assert_eq!(places(&found), ["node node1", "this machine"]);
    assert_eq!(found["seen"][0]["step"], "tls");
    assert_eq!(found["seen"][1]["pulls"], true, "{found}");
    assert!(
        found["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|step| step["seenFrom"] == "node node1"
                && step["seenBy"] == "towline probe in the node's kubelet"),
        "{found}"
    );
    let facts = found["evidence"].to_string();
    assert!(
        facts.contains("the views differ: this machine: pulls; node node1: stops at tls"),
        "{facts}"
    );

    let shown = node.towline(&["why", "pod/secure", "--ca", &ca, "--from-node", "node1"]);
    assert!(
        text(&shown).contains("seen from  node node1: stops at tls"),
        "{}",
        text(&shown)
    );

    // An image that no pod names is asked for without a login.
    let found = answer(&node, &[&image, "--ca", &ca, "--from-node", "node1"]);
    assert_eq!(found["cause"], "TlsUnknownAuthority", "{found}");

    let output = node.towline(&["why", "pod/secure", "--from-node", "node2"]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("the cluster has no node \"node2\""), "{told}");
    node.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node2}\n");
    let found = answer(&node, &["pod/secure", "--ca", &ca, "--from-node", "node2"]);
    assert!(
        found["unread"].to_string().contains("is on node node1"),
        "{found}"
    );
}

#[test]
fn the_node_finds_the_logins_itself_and_no_stranger_may_ask() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let image = format!("{}/team/app:v2", registry.address);
    let node = Node::up();
    let (user, password) = LOGIN;
    node.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "regcred",
        &format!("--docker-server={}", registry.address),
        &format!("--docker-username={user}"),
        &format!("--docker-password={password}"),
    ]);
    node.run("typo", &image, "  imagePullSecrets: [{name: regcred}]\n");
    node.wait_status("typo", "ErrImagePull", 30);
    let found = answer(&node, &["pod/typo", "--from-node", "node1"]);
    assert_eq!(found["cause"], "TagNotFound", "{found}");
    assert_eq!(found["confidence"], "proven", "{found}");
    let steps = found["steps"].to_string();
    assert!(steps.contains("secret default/regcred"), "{steps}");
    assert!(!found.to_string().contains(password), "no value travels");

    let ask = |image: &str, more: &[&str], path: &str| {
        let file = node.folder.path().join("ask.json");
        let ask = serde_json::json!({"image": image, "namespace": "default", "pod": "typo"});
        std::fs::write(&file, ask.to_string()).unwrap();
        let output = kubectl("kubectl", &node.kubeconfig())
            .args(["create", "--raw", path, "-f", file.to_str().unwrap()])
            .args(more)
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    let proxied = "/api/v1/nodes/node1/proxy/towline/replay";
    let (well, told) = ask(&image, &[], proxied);
    assert!(well && told.contains("NodeReplay"), "{told}");
    assert!(!told.contains(password), "no value travels");
    let other = format!("{}/team/secret:v1", registry.address);
    let (well, told) = ask(&other, &[], proxied);
    // kubectl does not pass on the words of a refusal that is no Status.
    assert!(
        !well && told.contains("BadRequest"),
        "only the pod's own images: {told}"
    );

    // Straight at the node: who is nobody gets nothing.
    let kubelet = format!("https://{}", node.address("kubelet"));
    let empty = node.folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let stranger = [
        "--kubeconfig",
        empty.to_str().unwrap(),
        "--server",
        &kubelet,
        "--insecure-skip-tls-verify",
        "--token",
        "made-up",
    ];
    let (well, told) = ask(&image, &stranger, "/towline/replay");
    assert!(!well && told.contains("must be logged in"), "{told}");
}
