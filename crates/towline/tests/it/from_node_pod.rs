//! `towline why --from-node NODE --with-pod IMAGE`: a pod of this very program on a real node, which is gone afterwards whatever happens.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::ourselves;
use crate::support::program::{Guard, signal, text, towline};
use crate::support::registry::{DockerRegistry, LOGIN, hello, push};

/// Pods that were made to look from the node.
fn visitors(node: &Node) -> String {
    node.kubectl(&[
        "get",
        "pods",
        "-A",
        "-l",
        "towline.dev/replay",
        "-o",
        "name",
    ])
}

fn all_gone(node: &Node) {
    eventually("no pod is left behind", 60, || {
        let left = visitors(node);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn secret(node: &Node, registry: &DockerRegistry) {
    node.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "regcred",
        &format!("--docker-server={}", registry.address),
        &format!("--docker-username={}", LOGIN.0),
        &format!("--docker-password={}", LOGIN.1),
    ]);
}

/// Asks at a terminal, where somebody answers so.
fn at_a_terminal(node: &Node, args: &[&str], answer: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_towline");
    let kubeconfig = node.kubeconfig();
    let asked = format!(
        "{program} why {} --kubeconfig {}",
        args.join(" "),
        kubeconfig.display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &asked, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut told, mut buffer, mut answered) = (Vec::new(), [0; 4096], false);
    loop {
        let read = output.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        told.extend_from_slice(&buffer[..read]);
        // As a person does: the question first.
        if !answered && String::from_utf8_lossy(&told).contains("[y/N]") {
            answered = true;
            input.write_all(answer.as_bytes()).unwrap();
        }
    }
    let status = child.wait().unwrap();
    drop(input);
    (status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn a_pod_of_this_program_looks_from_the_node_and_goes() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
        || need_program("script").is_none()
    {
        return;
    }
    let private = DockerRegistry::with_login();
    private.push(&hello("x"), "team/app", "v1");
    let node = Node::up();
    let own = node.address("registry");
    push(&ourselves::image(), own, "tools/towline", "v1", None);
    push(&hello("x"), own, "tools/hello", "v1", None);
    secret(&node, &private);
    let image = format!("{}/team/app:v2", private.address);
    node.run("typo", &image, "  imagePullSecrets: [{name: regcred}]\n");
    node.wait_status("typo", "ErrImagePull", 60);
    let with = format!("{own}/tools/towline:v1");

    it_answers(&node, &with);
    it_asks_first(&node, &with);
    it_tells_what_does_not_run(&node, &format!("{own}/tools/none:v1"), "ErrImagePull");
    it_tells_what_does_not_run(&node, &format!("{own}/tools/hello:v1"), "towline");
    it_ends_when_told(&node, &with);
}

fn it_answers(node: &Node, with: &str) {
    let output = node.towline(&[
        "why",
        "pod/typo",
        "--from-node",
        "node1",
        "--with-pod",
        with,
        "--yes",
        "-o",
        "json",
    ]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!told.contains(LOGIN.1), "no value is told");
    let errors = String::from_utf8_lossy(&output.stderr);
    for right in ["create pods", "get pods", "get pods/log", "delete pods"] {
        let line = format!("{right} in namespace default: yes");
        assert!(errors.contains(&line), "{line}: {errors}");
    }
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    crate::support::schema::check(&found);
    assert_eq!(found["cause"], "TagNotFound", "{found}");
    assert_eq!(found["confidence"], "proven", "{found}");
    let seen = &found["seen"][0];
    assert_eq!(seen["seenFrom"], "node node1", "{found}");
    let by = format!("towline probe in a pod of {with}");
    assert_eq!(seen["seenBy"], by.as_str(), "{found}");
    let steps = found["steps"].to_string();
    assert!(
        steps.contains("secret default/regcred"),
        "the pod's own secret was offered from the node: {steps}"
    );
    all_gone(node);
    // What the node and the API server wrote down holds no value either.
    assert!(!node.log().contains(LOGIN.1));
}

fn it_asks_first(node: &Node, with: &str) {
    let args = ["pod/typo", "--from-node", "node1", "--with-pod", with];
    let (code, told) = at_a_terminal(node, &args, "n\n");
    assert!(told.contains("make it? [y/N]"), "{told}");
    assert!(told.contains("nothing was made"), "{told}");
    assert!(visitors(node).is_empty());
    assert_eq!(code, Some(2), "{told}");

    let (code, told) = at_a_terminal(node, &args, "y\n");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("TagNotFound"), "{told}");
    assert!(told.contains("seen from  node node1"), "{told}");
    all_gone(node);

    // Ctrl-C at the question.
    let (code, told) = at_a_terminal(node, &args, "\u{3}");
    assert_ne!(code, Some(0), "{told}");
    assert!(visitors(node).is_empty());

    // Where nobody can answer, nothing is made.
    let unattended = node.towline(&[&["why"], &args[..]].concat());
    assert_eq!(unattended.status.code(), Some(64), "{}", text(&unattended));
    assert!(visitors(node).is_empty());
}

fn it_tells_what_does_not_run(node: &Node, with: &str, words: &str) {
    let output = node.towline(&[
        "why",
        "pod/typo",
        "--from-node",
        "node1",
        "--with-pod",
        with,
        "--yes",
        "-o",
        "json",
    ]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let unread = found["unread"].to_string();
    assert!(
        unread.contains("did not replay the pull") && unread.contains(with),
        "{unread}"
    );
    assert!(unread.contains(words), "{words}: {unread}");
    assert_eq!(found["cause"], "TagNotFound", "this machine still answers");
    all_gone(node);
}

fn it_ends_when_told(node: &Node, with: &str) {
    // A registry that takes the connection and never says a word keeps the visitor busy.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/x:v1", silent.local_addr().unwrap());
    let mut asked = Guard::spawn(
        towline()
            .args(["why", &image, "--from-node", "node1", "--with-pod", with])
            .args(["--yes", "--kubeconfig"])
            .arg(node.kubeconfig())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    eventually("the visitor is there", 60, || {
        let there = visitors(node);
        if there.is_empty() {
            Err("none yet".to_owned())
        } else {
            Ok(())
        }
    });
    signal(asked.0.id(), "INT");
    let status = eventually("it ends", 60, || {
        let status = asked.0.try_wait().unwrap();
        status.ok_or_else(|| "still running".to_owned())
    });
    assert_ne!(status.code(), Some(0));
    all_gone(node);
}
