//! The node itself: up, a pod that runs, logs, stop, start again.

use std::time::Duration;

use towline_sys::testing::{need_program, need_root};

use crate::support::node::{Node, nothing_is_left};
use crate::support::program::text;
use crate::support::registry::{hello, push};
use crate::support::{eventually, registry::DockerRegistry};

#[test]
fn a_pod_from_the_nodes_own_registry_runs_and_all_is_gone_after_ctrl_c() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let mut node = Node::up();
    push(
        &hello("hello from the node"),
        node.address("registry"),
        "lib/app",
        "1.0",
        None,
    );
    let image = format!("{}/lib/app:1.0", node.address("registry"));
    // A volume in memory is a mount of the kubelet's, which has to go too; and a container that does not listen.
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: good}}\nspec:\n  containers:\n  - {{name: stubborn, image: \"{image}\", command: [/bin/stubborn]}}\n  - {{name: app, image: \"{image}\", volumeMounts: [{{name: mem, mountPath: /mem}}]}}\n  volumes: [{{name: mem, emptyDir: {{medium: Memory}}}}]\n"
    ));
    node.wait_status("good", "Running", 20);
    eventually("the log has the line", 5, || {
        let log = node.kubectl(&["logs", "good", "-c", "app"]);
        if log.contains("hello from the node") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let described = node.kubectl(&["describe", "pod", "good"]);
    assert!(
        described.contains("Successfully pulled image"),
        "{described}"
    );
    let wide = node.kubectl(&["get", "pods", "-o", "wide"]);
    assert!(
        wide.contains("10.88."),
        "the pod has an address of the bridge: {wide}"
    );

    let status = node.process.interrupt(Duration::from_secs(8));
    assert!(status.success(), "{status}: {}", node.log());
    assert!(!node.log().contains("in time"), "{}", node.log());
    nothing_is_left(&node.data());
}

#[test]
fn the_next_up_carries_on_with_the_same_objects_and_images() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let mut node = Node::up();
    push(
        &hello("again"),
        node.address("registry"),
        "lib/app",
        "1.0",
        None,
    );
    let image = format!("{}/lib/app:1.0", node.address("registry"));
    let registry = node.address("registry").to_string();
    node.run("good", &image, "");
    node.wait_status("good", "Running", 20);
    let uid = node.kubectl(&["get", "pod", "good", "-o", "jsonpath={.metadata.uid}"]);
    assert!(
        node.process.interrupt(Duration::from_secs(8)).success(),
        "{}",
        node.log()
    );

    let folder = std::mem::replace(&mut node.folder, tempfile::tempdir().unwrap());
    drop(node);
    let node = Node::up_in(folder, &["--registry-listen", &registry]);
    assert_eq!(
        node.kubectl(&["get", "pod", "good", "-o", "jsonpath={.metadata.uid}"]),
        uid
    );
    eventually("the pod's container runs again", 30, || {
        let log = text(&node.try_kubectl(&["logs", "good"]));
        let status = node.kubectl(&["get", "pod", "good", "--no-headers"]);
        if status.contains("Running") && log.contains("again") {
            Ok(())
        } else {
            Err(format!("{status}{log}{}", node.log()))
        }
    });
}

#[test]
fn a_pod_from_docker_registry_runs() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let registry = DockerRegistry::open();
    registry.push(&hello("from docker-registry"), "team/app", "v1");
    let node = Node::up();
    node.run("app", &format!("{}/team/app:v1", registry.address), "");
    node.wait_status("app", "Running", 20);
    eventually("its log is read", 5, || {
        let log = node.kubectl(&["logs", "app"]);
        if log.contains("from docker-registry") {
            Ok(())
        } else {
            Err(log)
        }
    });
    node.kubectl(&["delete", "pod", "app", "--timeout=20s"]);
}

#[test]
fn an_older_kubectl_works_too() {
    if !need_root() || need_program("kubectl-1.32").is_none() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let old = |args: &[&str]| {
        let output = crate::support::node::kubectl("kubectl-1.32", &node.kubeconfig())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        text(&output)
    };
    assert!(old(&["get", "nodes"]).contains("Ready"));
    old(&[
        "create",
        "secret",
        "docker-registry",
        "regcred",
        "--docker-server=reg.test",
        "--docker-username=u",
        "--docker-password=p",
    ]);
    assert!(old(&["get", "secrets"]).contains("kubernetes.io/dockerconfigjson"));
    old(&["create", "deployment", "web", "--image=127.0.0.1:1/none:v1"]);
    assert!(old(&["get", "deploy", "web"]).contains("0/1"));
    old(&["delete", "deployment", "web"]);
}
