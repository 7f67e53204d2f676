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

/// A web server that answers whatever it is asked with a page; its address. It ends with the process.
fn web_server() -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // Whatever is asked, the answer is the same; what is not read would reset it.
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.extend(byte);
            }
            let page = "<!doctype html><title>Welcome</title>";
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    address
}

#[test]
fn a_cluster_that_cannot_be_talked_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    // Nobody listens at port 1 of loopback.
    let cluster = json!({"server": "http://127.0.0.1:1"});
    let made = config;
    let config = made(Some(&cluster), Some(&json!({})), true);
    std::fs::write(&file, config.to_string()).unwrap();
    let absent = folder.path().join("absent");
    // A program that should give the login and does not, and a web server where the API should be.
    let program = folder.path().join("no-such-program");
    let exec = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program,
        "interactiveMode": "Never",
    }});
    let (no_login, no_api) = (folder.path().join("no-login"), folder.path().join("no-api"));
    std::fs::write(
        &no_login,
        made(Some(&cluster), Some(&exec), true).to_string(),
    )
    .unwrap();
    let web = web_server();
    let web_cluster = json!({"server": format!("http://{web}")});
    let text_of = made(Some(&web_cluster), Some(&json!({})), true).to_string();
    std::fs::write(&no_api, text_of).unwrap();
    let at_web = format!("what answers is no Kubernetes API server at http://{web} (kubeconfig ");
    for (kubeconfig, words) in [
        (
            &file,
            &[
                "cannot reach the cluster at http://127.0.0.1:1 (kubeconfig ",
                "onnection refused",
                "hint: is it running, and is this the right one?",
            ][..],
        ),
        (&absent, &["KUBECONFIG names", "no such file", "hint: "]),
        (
            &no_login,
            &[
                "cannot get the login for the cluster at http://127.0.0.1:1 (kubeconfig ",
                "hint: the kubeconfig names a file, a token or a program",
            ],
        ),
        (
            &no_api,
            &[at_web.as_str(), "hint: is this the right address?"],
        ),
    ] {
        let output = towline()
            .args(["why", "-n", "shop"])
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", folder.path())
            .output()
            .unwrap();
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        for word in words.iter().chain([&kubeconfig.to_str().unwrap()]) {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!told.contains("kube_client"), "no line of a log: {told}");
    }
}

#[test]
fn what_is_not_there_or_not_allowed_is_said_in_words() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let why = |args: &[&str]| {
        let output = node.towline(&[&["why"], args].concat());
        (output.status.code(), text(&output))
    };
    let (code, told) = why(&["-n", "defualt"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("there is no namespace \"defualt\""), "{told}");
    assert!(told.contains("did you mean default?"), "{told}");
    let (code, told) = why(&["-n", "kube-public"]);
    assert!(code == Some(2) || told.contains("no pods"), "{told}");
    let (code, told) = why(&["lost", "-n", "default"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("there is no pod \"lost\""), "{told}");

    // Somebody who may do nothing.
    node.kubectl(&["create", "serviceaccount", "nobody"]);
    let token = node.kubectl(&["create", "token", "nobody"]);
    let (cluster, _) = parts(&node);
    let user = json!({"token": token.trim()});
    let file = write(&node, "nobody", &config(Some(&cluster), Some(&user), true));
    let output = towline()
        .args(["why", "-n", "default"])
        .env("KUBECONFIG", &file)
        .output()
        .unwrap();
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("the cluster does not let you read the pods"),
        "{told}"
    );
    assert!(
        told.contains("docs/rbac-why.yaml lists the rights"),
        "{told}"
    );
    assert!(!told.contains("Status {"), "{told}");
}
