//! `towline why` inside a pod: the cluster is found by the service account's files, and no right is had that was not given.

use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::ourselves;
use crate::support::program::text;
use crate::support::registry::push;

/// Runs the program once in a pod of the node's network, with the files of its service account or without, and gives exit code and
/// output.
fn run(node: &Node, name: &str, image: &str, args: &str, files: bool) -> (String, String) {
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  hostNetwork: true\n  automountServiceAccountToken: {files}\n  containers:\n  - {{name: app, image: \"{image}\", args: [{args}], env: [{{name: HOME, value: /tmp}}]}}\n"
    ));
    let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    let code = eventually(&format!("pod {name} ends"), 60, || {
        let code = node.kubectl(&["get", "pod", name, "-o", code]);
        if code.is_empty() {
            let pod = node.kubectl(&["get", "pod", name, "-o", "jsonpath={.status}"]);
            Err(pod)
        } else {
            Ok(code)
        }
    });
    let logs = text(&node.try_kubectl(&["logs", name]));
    (code, logs)
}

#[test]
fn a_pod_finds_its_cluster_and_has_no_right_that_was_not_given() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let own = node.address("registry");
    push(&ourselves::image(), own, "tools/towline", "v1", None);
    let image = format!("{own}/tools/towline:v1");

    // The API server knows who asks, by its token over a connection that its own authority vouches for.
    let (code, told) = run(&node, "all", &image, "why, -A", true);
    assert_eq!(code, "2", "{told}");
    assert!(
        told.contains("system:serviceaccount:default:default"),
        "{told}"
    );
    assert!(
        told.contains("docs/rbac-why.yaml lists the rights"),
        "{told}"
    );
    assert!(!told.contains("eyJ"), "no token is told: {told}");

    // The namespace is the pod's own.
    node.kubectl(&["create", "namespace", "shop"]);
    let (code, told) = run(&node, "one", &image, "why, pod/web", true);
    assert_eq!(code, "2", "{told}");
    assert!(told.contains("default/web"), "{told}");

    // Without the files there is no cluster to talk to.
    let (code, told) = run(&node, "none", &image, "why, -A", false);
    assert_eq!(code, "2", "{told}");
    assert!(told.contains("no cluster to talk to"), "{told}");

    // An image is asked about all the same, from where the pod is.
    let (code, told) = run(&node, "image", &image, &format!("why, \"{image}\""), false);
    assert_eq!(code, "0", "{told}");
    assert!(told.contains("can be pulled"), "{told}");
}
