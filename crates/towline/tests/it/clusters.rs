//! How `towline why` finds a cluster: several kubeconfigs as one, credentials from a program, the files of a pod's service account.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::{text, towline};

/// The parts of a node's kubeconfig.
fn parts(node: &Node) -> (Value, Value) {
    let shown = node.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"]);
    let config: Value = serde_json::from_str(&shown).unwrap();
    let cluster = config["clusters"][0]["cluster"].clone();
    let user = config["users"][0]["user"].clone();
    (cluster, user)
}

fn write(node: &Node, name: &str, value: &Value) -> PathBuf {
    let file = node.folder.path().join(name);
    std::fs::write(&file, value.to_string()).unwrap();
    file
}

fn config(cluster: Option<&Value>, user: Option<&Value>, context: bool) -> Value {
    let mut config = json!({"apiVersion": "v1", "kind": "Config"});
    if let Some(cluster) = cluster {
        config["clusters"] = json!([{"name": "c", "cluster": cluster}]);
    }
    if let Some(user) = user {
        config["users"] = json!([{"name": "u", "user": user}]);
    }
    if context {
        config["contexts"] = json!([{"name": "x", "context": {"cluster": "c", "user": "u"}}]);
        config["current-context"] = json!("x");
    }
    config
}

fn why(node: &Node, kubeconfig: &str) -> Output {
    towline()
        .args(["why", "-A"])
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", node.folder.path().join("home"))
        .output()
        .unwrap()
}

fn asked_well(output: &Output) {
    let told = text(output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("all namespaces"), "{told}");
}

/// A program that prints the credential of this user, as kubectl's exec plugins do.
fn plugin(folder: &Path, user: &Value) -> PathBuf {
    let pem = |field: &str| {
        let text = user[field].as_str().unwrap();
        let bytes = Command::new("base64")
            .args(["-d"])
            .arg(write_text(folder, "pem.b64", text))
            .output()
            .unwrap();
        String::from_utf8(bytes.stdout).unwrap()
    };
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "clientCertificateData": pem("client-certificate-data"),
            "clientKeyData": pem("client-key-data"),
        },
    });
    let answer = write_text(folder, "credential.json", &credential.to_string());
    let program = folder.join("plugin.sh");
    std::fs::write(
        &program,
        format!("#!/bin/sh\nexec cat {}\n", answer.display()),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn write_text(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_cluster_is_found_as_kubectl_finds_it() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let (cluster, user) = parts(&node);

    // Several files count together, and one that is not there is no error.
    let first = write(&node, "first", &config(Some(&cluster), None, true));
    let second = write(&node, "second", &config(None, Some(&user), false));
    let list = format!(
        "{}:{}:{}",
        first.display(),
        node.folder.path().join("absent").display(),
        second.display()
    );
    asked_well(&why(&node, &list));

    // A program gives the credential.
    let program = plugin(node.folder.path(), &user);
    let exec = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program,
        "interactiveMode": "Never",
    }});
    let file = write(&node, "exec", &config(Some(&cluster), Some(&exec), true));
    asked_well(&why(&node, file.to_str().unwrap()));
}
