//! `towline why` that stays: `--watch` and `--fix`; and as `kubectl towline`.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::{Node, kubectl};
use crate::support::program::{Guard, text, towline};
use crate::support::registry::{DockerRegistry, LOGIN, hello, push};

fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: app, image: \"{image}\"}}]\n"
    )
}

/// Waits until `why TARGET` names this cause as proven.
fn wait_cause(node: &Node, target: &str, cause: &str) {
    eventually(&format!("{target} is {cause}"), 60, || {
        let output = node.towline(&["why", target, "-o", "json"]);
        let answer: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        if answer["cause"] == cause && answer["confidence"] == "proven" {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    });
}

#[test]
fn a_certain_change_is_shown_made_and_followed() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    push(&hello("x"), registry, "team/app", "v1.0", None);
    push(&hello("x"), registry, "team/app", "v2.0", None);
    node.apply(&deployment("web", &format!("{registry}/team/app:v1.O")));
    wait_cause(&node, "deployment/web", "TagNotFound");
    let image = || {
        node.kubectl(&[
            "get",
            "deploy",
            "web",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])
    };

    let mut asked = towline()
        .args(["why", "deployment/web", "--fix", "--kubeconfig"])
        .arg(node.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    asked.stdin.take().unwrap().write_all(b"no\n").unwrap();
    let output = asked.wait_with_output().unwrap();
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in [
        "deployment default/web".to_owned(),
        "spec.template.spec.containers[app].image".to_owned(),
        format!("- {registry}/team/app:v1.O"),
        format!("+ {registry}/team/app:v1.0"),
        "Make this change?".to_owned(),
        "nothing is changed".to_owned(),
    ] {
        assert!(told.contains(&words), "{words}: {told}");
    }
    assert!(image().ends_with(":v1.O"), "a no changes nothing");

    let output = node.towline(&["why", "deployment/web", "--fix", "--yes"]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("deployment default/web runs"), "{told}");
    assert!(image().ends_with(":v1.0"));

    // What a person must decide is not done for them.
    node.run("far", &format!("{registry}/team/app:v7"), "");
    wait_cause(&node, "pod/far", "TagNotFound");
    let output = node.towline(&["why", "pod/far", "--fix", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("nothing is changed"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_secret_that_would_do_is_named_in_the_template() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let node = Node::up();
    let server = format!("--docker-server={}", registry.address);
    let user = format!("--docker-username={}", LOGIN.0);
    let password = format!("--docker-password={}", LOGIN.1);
    node.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "reg-cred",
        &server,
        &user,
        &password,
    ]);
    node.apply(&deployment(
        "api",
        &format!("{}/team/app:v1", registry.address),
    ));
    wait_cause(&node, "deployment/api", "PullSecretNotReferenced");
    let output = node.towline(&["why", "deployment/api", "--fix", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let named = node.kubectl(&[
        "get",
        "deploy",
        "api",
        "-o",
        "jsonpath={.spec.template.spec.imagePullSecrets}",
    ]);
    assert!(named.contains("reg-cred"), "{named}");
    assert!(!text(&output).contains(LOGIN.1));
}

#[test]
fn a_watch_prints_a_new_answer_and_ends_when_told() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    push(&hello("x"), registry, "team/app", "v1", None);
    node.run("typo", &format!("{registry}/team/app:v9"), "");
    wait_cause(&node, "pod/typo", "TagNotFound");
    let file = node.folder.path().join("watch");
    let out = std::fs::File::create(&file).unwrap();
    let mut watch = Guard::spawn(
        towline()
            .args(["why", "pod/typo", "--watch", "--kubeconfig"])
            .arg(node.kubeconfig())
            .stdout(out.try_clone().unwrap())
            .stderr(Stdio::from(out)),
    );
    let shows = |words: &str| {
        eventually(&format!("the watch shows {words:?}"), 60, || {
            let told = std::fs::read_to_string(&file).unwrap();
            if told.contains(words) {
                Ok(told)
            } else {
                Err(told)
            }
        })
    };
    shows("TagNotFound");
    node.kubectl(&[
        "set",
        "image",
        "pod/typo",
        &format!("app={registry}/team/app:v1"),
    ]);
    let told = shows("every image of the pod is on node node1");
    assert_eq!(
        told.matches("TagNotFound").count(),
        told[..told.find("---").unwrap()]
            .matches("TagNotFound")
            .count(),
        "the same is not said twice: {told}"
    );
    let status = watch.interrupt(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "the last answer was good");
}

#[test]
fn kubectl_knows_it_as_a_plugin_by_name_alone() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    node.run("typo", &format!("{registry}/team/app:v1"), "");
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-towline");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_towline"), plugin).unwrap();
    let run = |args: &[&str]| {
        let path = std::env::var("PATH").unwrap();
        let mut command: Command = kubectl("kubectl", &node.kubeconfig());
        command
            .args(args)
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .output()
            .unwrap()
    };
    eventually("kubectl towline why names the cause", 60, || {
        let output = run(&["towline", "why", "pod/typo", "-n", "default", "-o", "json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| text(&output))?;
        let found = answer["cause"] == "RepositoryNotFound" && output.status.code() == Some(1);
        if found {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    });
    let help = text(&run(&["towline", "why", "--help"]));
    assert!(help.contains("kubectl towline why"), "{help}");
    assert!(text(&run(&["plugin", "list"])).contains("kubectl-towline"));
}
