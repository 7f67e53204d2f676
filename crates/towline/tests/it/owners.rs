//! `towline why --fix` for each kind of owner: the change goes where it lasts, is followed until it runs, and is left alone where it
//! takes a decision or a secret. Kinds whose controllers do not run here have the test in their place.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::Node;
use crate::support::program::{text, towline};
use crate::support::registry::{DockerRegistry, LOGIN, hello, push};

/// A pod template, or a pod's metadata and spec, of this image.
fn spec(label: &str, image: &str, more: &str) -> String {
    format!(
        "metadata: {{labels: {{app: {label}}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: app, image: \"{image}\"}}]{more}}}"
    )
}

fn workload(kind: &str, name: &str, image: &str) -> String {
    let (version, more) = match kind {
        "StatefulSet" => ("apps/v1", ", serviceName: db"),
        _ => ("apps/v1", ""),
    };
    let template = spec(name, image, "");
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{{template}}}{more}}}\n"
    )
}

/// A pod as its controller would make it.
fn made_by(node: &Node, (version, kind, owner): (&str, &str, &str), pod: &str, image: &str) {
    let uid = node.kubectl(&["get", kind, owner, "-o", "jsonpath={.metadata.uid}"]);
    let reference = format!(
        "[{{apiVersion: {version}, kind: {kind}, name: {owner}, uid: {uid}, controller: true}}]"
    );
    let more = if kind == "Job" {
        ", restartPolicy: Never"
    } else {
        ""
    };
    let body = spec(owner, image, more).replacen(
        "metadata: {",
        &format!("metadata: {{name: {pod}, ownerReferences: {reference}, "),
        1,
    );
    let body = body.replacen(", spec:", "\nspec:", 1);
    node.apply(&format!("apiVersion: v1\nkind: Pod\n{body}\n"));
}

fn wait_cause(node: &Node, target: &str, cause: &str) {
    eventually(&format!("{target} is {cause}"), 60, || {
        let output = node.towline(&["why", target, "-o", "json"]);
        let answer: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let good = answer["cause"] == cause && answer["confidence"] == "proven";
        if good {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    });
}

/// Asks for the fix and says yes where it is shown.
fn fix(node: &Node, target: &str) -> Output {
    let mut child = towline()
        .args(["why", target, "--fix", "--kubeconfig"])
        .arg(node.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end without asking.
    input.write_all(b"y\n").ok();
    drop(input);
    child.wait_with_output().unwrap()
}

/// What was told, without the line breaks that a width makes.
fn told(output: &Output) -> String {
    let words: Vec<String> = text(output).split_whitespace().map(str::to_owned).collect();
    words.join(" ")
}

fn made_and_runs(output: &Output, words: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    for words in words.iter().copied().chain(["Make this change?", " runs"]) {
        assert!(told.contains(words), "{words}: {told}");
    }
}

fn left_alone(output: &Output, words: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in words.iter().copied().chain(["nothing is changed"]) {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("Make this change?"), "{told}");
}

struct Slip {
    node: Node,
    wrong: String,
    right: String,
}

impl Slip {
    /// A node whose registry has a tag that looks like the one that is asked for.
    fn new() -> Self {
        let node = Node::up();
        let registry = node.address("registry");
        push(&hello("x"), registry, "team/app", "v1.0", None);
        Self {
            wrong: format!("{registry}/team/app:v1.O"),
            right: format!("{registry}/team/app:v1.0"),
            node,
        }
    }

    /// Plays the controller of a kind that has none here: when the template is right, the pod is made anew by it.
    fn with_controller(&self, kind: &str, owner: &str, pod: &str) -> Output {
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        std::thread::scope(|scope| {
            scope.spawn(|| {
                eventually("the template is changed", 120, || {
                    let now = self.node.kubectl(&["get", kind, owner, "-o", image]);
                    if now == self.right { Ok(()) } else { Err(now) }
                });
                let gone = ["delete", "pod", pod, "--ignore-not-found", "--now"];
                self.node.kubectl(&gone);
                made_by(&self.node, ("apps/v1", kind, owner), pod, &self.right);
            });
            fix(&self.node, &format!("{}/{owner}", kind.to_lowercase()))
        })
    }
}

#[test]
fn a_slip_is_mended_where_it_lasts() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let slip = Slip::new();
    let node = &slip.node;
    let (minus, plus) = (format!("- {}", slip.wrong), format!("+ {}", slip.right));

    node.run("alone", &slip.wrong, "");
    wait_cause(node, "pod/alone", "TagNotFound");
    let done = fix(node, "pod/alone");
    made_and_runs(&done, &["spec.containers[app].image", &minus, &plus]);

    node.apply(&workload("ReplicaSet", "set", &slip.wrong));
    wait_cause(node, "replicaset/set", "TagNotFound");
    let done = fix(node, "replicaset/set");
    let path = "spec.template.spec.containers[app].image";
    made_and_runs(
        &done,
        &["replicaset default/set", path, &plus, "the pod goes"],
    );

    for (kind, owner, pod) in [
        ("StatefulSet", "db", "db-0"),
        ("DaemonSet", "agent", "agent-x"),
    ] {
        node.apply(&workload(kind, owner, &slip.wrong));
        made_by(node, ("apps/v1", kind, owner), pod, &slip.wrong);
        let target = format!("{}/{owner}", kind.to_lowercase());
        wait_cause(node, &target, "TagNotFound");
        let done = slip.with_controller(kind, owner, pod);
        made_and_runs(&done, &[path, &minus, &plus]);
        let goes = text(&done).contains("the pod goes");
        assert_eq!(goes, kind == "StatefulSet", "{}", text(&done));
    }
}

#[test]
fn what_is_not_certain_or_cannot_be_changed_is_left_alone() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let slip = Slip::new();
    let node = &slip.node;
    let template = spec("x", &slip.wrong, ", restartPolicy: Never");
    node.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: once}}\nspec: {{template: {{{template}}}}}\n"
    ));
    made_by(node, ("batch/v1", "Job", "once"), "once-x", &slip.wrong);
    wait_cause(node, "job/once", "TagNotFound");
    let told = fix(node, "job/once");
    left_alone(
        &told,
        &["a job's template cannot be changed: delete job/once"],
    );

    node.apply(&format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\nspec: {{schedule: '0 3 * * *', jobTemplate: {{spec: {{template: {{{template}}}}}}}}}\n"
    ));
    wait_cause(node, "cronjob/nightly", "TagNotFound");
    let command = format!("set image cronjob/nightly app={}", slip.right);
    left_alone(&fix(node, "cronjob/nightly"), &[&command]);
    let image = node.kubectl(&["get", "cronjob", "nightly", "-o", "yaml"]);
    assert!(image.contains(&slip.wrong), "{image}");
}

#[test]
fn a_login_is_named_where_it_is_and_never_made_up() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let image = format!("{}/team/app:v1", registry.address);
    let node = Node::up();

    // No login anywhere: it takes a secret that only a person has.
    node.apply(&workload("Deployment", "api", &image));
    let refused = eventually("a login is wanted", 60, || {
        let output = fix(&node, "deployment/api");
        if text(&output).contains("NoCredentials") {
            Ok(output)
        } else {
            Err(text(&output))
        }
    });
    left_alone(&refused, &["create secret docker-registry regcred"]);

    // The service account names one by now: the pod has to be made anew, and gets it.
    node.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "reg-cred",
        &format!("--docker-server={}", registry.address),
        &format!("--docker-username={}", LOGIN.0),
        &format!("--docker-password={}", LOGIN.1),
    ]);
    let named = r#"{"imagePullSecrets":[{"name":"reg-cred"}]}"#;
    node.kubectl(&["patch", "serviceaccount", "default", "-p", named]);
    wait_cause(&node, "deployment/api", "PullSecretNotReferenced");
    let done = fix(&node, "deployment/api");
    let account = "the service account \"default\" names the secret \"reg-cred\" by now";
    made_and_runs(&done, &[account, "the pod goes"]);
    assert!(!text(&done).contains(LOGIN.1));

    // A bare pod is made again by nobody, and what a service account names all its pods get: a person decides.
    node.kubectl(&[
        "patch",
        "serviceaccount",
        "default",
        "--type=merge",
        "-p",
        r#"{"imagePullSecrets":[]}"#,
    ]);
    registry.push(&hello("y"), "team/bare", "v1");
    node.run("bare", &format!("{}/team/bare:v1", registry.address), "");
    wait_cause(&node, "pod/bare", "PullSecretNotReferenced");
    left_alone(
        &fix(&node, "pod/bare"),
        &[
            "patch serviceaccount default",
            "delete and apply the pod again",
        ],
    );
}
