//! `towline why` for workloads, namespaces and the whole cluster.

use std::process::Stdio;

use serde_json::Value;
use towline_sys::testing::{need_program, need_root};

use crate::support::eventually;
use crate::support::node::{Node, kubectl};
use crate::support::program::{Guard, text, towline};
use crate::support::registry::{hello, push};
use crate::support::schema;

/// Runs `why ... -o json` until the answer is as it should be: pods come and fail in their own time.
fn answer(node: &Node, args: &[&str], good: impl Fn(&Value) -> bool) -> (Option<i32>, Value) {
    eventually(&format!("why {args:?}"), 60, || {
        let output = node.towline(&[&["why"], args, &["-o", "json"]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", text(&output)))?;
        schema::check(&answer);
        if good(&answer) {
            Ok((output.status.code(), answer))
        } else {
            Err(answer.to_string())
        }
    })
}

fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: app, image: \"{image}\"}}]\n"
    )
}

#[test]
fn pods_that_fail_for_one_reason_are_one_answer() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    push(&hello("x"), registry, "team/app", "v1.0", None);
    let image = |tag: &str| format!("{registry}/team/app:{tag}");
    for (name, tag, replicas) in [("web", "v1.O", 3), ("api", "v1.O", 2), ("good", "v1.0", 1)] {
        node.apply(&deployment(name, &image(tag), replicas));
    }
    node.kubectl(&["rollout", "status", "deployment/good", "--timeout=60s"]);
    node.run("lost", "registry.nowhere.invalid/x:v1", "");

    let seen =
        |answer: &Value| answer["broken"] == 6 && answer["items"][0]["affected"]["count"] == 5;
    let (code, answer_all) = answer(&node, &["-n", "default"], seen);
    assert_eq!(code, Some(1));
    assert_eq!(answer_all["kind"], "DiagnosisList");
    assert_eq!(answer_all["apiVersion"], "towline.dev/v1");
    assert_eq!(answer_all["pods"], 7, "{answer_all}");
    let first = &answer_all["items"][0];
    assert_eq!(first["cause"], "TagNotFound", "most pods come first");
    assert_eq!(first["confidence"], "proven");
    assert_eq!(
        first["affected"]["workloads"],
        serde_json::json!(["default/deployment/api", "default/deployment/web"])
    );
    let commands = first["fixes"][0]["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 2, "one for each deployment: {commands:?}");
    // One replay for five pods, and one for the pod whose registry does not exist.
    let asked = answer_all["asked"].as_array().unwrap();
    let requests = |name: &str| {
        let one = asked.iter().find(|one| one["registry"] == name);
        one.and_then(|one| one["requests"].as_u64())
    };
    assert!(
        requests(&registry.to_string()).is_some_and(|n| n <= 6),
        "{asked:?}"
    );
    assert_eq!(requests("registry.nowhere.invalid"), Some(0));

    let (code, one) = answer(&node, &["deploy/web"], |one| one["affected"]["count"] == 3);
    assert_eq!((code, one["kind"].as_str()), (Some(1), Some("Diagnosis")));
    assert_eq!(one["target"]["owner"]["name"], "web");
    let well = |one: &Value| one["pulls"] == true;
    assert_eq!(answer(&node, &["deployment", "good"], well).0, Some(0));
    let (_, all) = answer(&node, &["-A"], seen);
    assert_eq!(all["scope"], "all namespaces");

    let output = node.towline(&["why", "-A"]);
    let told = text(&output);
    assert!(
        told.contains("5 pods on 1 node: default/deployment/api"),
        "{told}"
    );
    let wide = told.lines().filter(|line| line.chars().count() > 80);
    let wide: Vec<&str> = wide
        .filter(|line| !line.trim().starts_with("kubectl "))
        .collect();
    assert!(wide.is_empty(), "{wide:?}");
    assert!(!told.contains('\x1b'), "no colour where no terminal is");
    let output = node.towline(&["why", "-A", "-o", "markdown"]);
    assert!(
        text(&output).contains("5 pods on 1 node"),
        "{}",
        text(&output)
    );
    assert_eq!(node.towline(&["why", "deploy/none"]).status.code(), Some(2));
}

#[test]
fn jobs_and_what_has_no_pods_are_explained() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let node = Node::up();
    let registry = node.address("registry");
    push(&hello("x"), registry, "team/app", "v1.0", None);
    let spec = |tag: &str| {
        format!(
            "{{restartPolicy: Never, containers: [{{name: app, image: \"{registry}/team/app:{tag}\"}}]}}"
        )
    };
    node.apply(&format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\nspec:\n  schedule: '0 3 * * *'\n  jobTemplate: {{spec: {{template: {{spec: {}}}}}}}\n",
        spec("v1.O")
    ));
    let none = |one: &Value| one["cause"] == "TagNotFound";
    let (code, one) = answer(&node, &["cronjob/nightly"], none);
    assert_eq!(
        (code, one["target"]["kind"].as_str()),
        (Some(1), Some("CronJob"))
    );
    assert_eq!(
        one["fixes"][0]["commands"][0].as_str().unwrap(),
        format!("kubectl -n default set image cronjob/nightly app={registry}/team/app:v1.0")
    );

    let uid = node.kubectl(&[
        "get",
        "cronjob",
        "nightly",
        "-o",
        "jsonpath={.metadata.uid}",
    ]);
    let owner = |kind: &str, name: &str, uid: &str| {
        format!(
            "ownerReferences: [{{apiVersion: batch/v1, kind: {kind}, name: {name}, uid: {uid}, controller: true}}]"
        )
    };
    node.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: nightly-1, {}}}\nspec: {{template: {{spec: {}}}}}\n",
        owner("CronJob", "nightly", &uid),
        spec("v1.O")
    ));
    let uid = node.kubectl(&["get", "job", "nightly-1", "-o", "jsonpath={.metadata.uid}"]);
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: nightly-1-abc, {}}}\nspec: {}\n",
        owner("Job", "nightly-1", &uid),
        spec("v1.O")
    ));
    let failing = |one: &Value| one["cause"] == "TagNotFound" && one["target"]["kind"] == "Pod";
    for target in ["cronjob/nightly", "cj/nightly", "job/nightly-1"] {
        let (_, one) = answer(&node, &[target], failing);
        assert_eq!(one["target"]["name"], "nightly-1-abc", "{target}");
        assert_eq!(one["target"]["owner"]["kind"], "CronJob", "{target}");
    }
}

#[test]
fn what_may_not_be_read_is_said_with_what_it_costs() {
    if !need_root() || need_program("kubectl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let _api = Guard::spawn(
        towline()
            .args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &data])
            .stderr(Stdio::null()),
    );
    let identity = |name: &str| folder.path().join("kubeconfigs").join(name);
    let run = |program: &str, who: &str, args: &[&str]| {
        let mut command = match program {
            "kubectl" => kubectl("kubectl", &identity(who)),
            _ => towline(),
        };
        command
            .args(args)
            .env("KUBECONFIG", identity(who))
            .output()
            .unwrap()
    };
    // No controllers run here to make it.
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n---\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {nodeName: gone, imagePullSecrets: [{name: regcred}], containers: [{name: app, image: \"registry.nowhere.invalid/x:v1\"}]}\n";
    let file = folder.path().join("pod.yaml");
    std::fs::write(&file, format!("{account}{pod}")).unwrap();
    eventually("the pod is there", 30, || {
        let output = run(
            "kubectl",
            "admin",
            &["apply", "--validate=false", "-f", file.to_str().unwrap()],
        );
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    });
    // The scheduler reads pods, nodes and events, and no secrets.
    let output = run(
        "towline",
        "scheduler",
        &["why", "-n", "default", "-o", "json"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::check(&answer);
    assert_eq!(answer["items"][0]["cause"], "DnsNameNotFound");
    let unread = answer["items"][0]["unread"].to_string();
    assert!(
        unread.contains("secret default/regcred") && unread.contains("403"),
        "{unread}"
    );
    assert!(
        unread.contains("node gone") && unread.contains("404"),
        "{unread}"
    );
    let output = run("towline", "scheduler", &["why", "pod/web"]);
    assert!(
        text(&output).contains("note       secret default/regcred could not be read (403"),
        "{}",
        text(&output)
    );
}
