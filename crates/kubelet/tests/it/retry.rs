//! When pulls are tried again, and what Towline adds to Kubernetes: early attempts, the annotation, the condition.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::bench::Bench;
use crate::cri::Script;

const IMAGE: &str = "127.0.0.1:5000/a/b:1";

fn failing() -> Script {
    let text = format!(
        "failed to pull and unpack image \"{IMAGE}\": failed to resolve image: {IMAGE}: not found [towline: cause=TagNotFound step=resolve endpoint=http://127.0.0.1:5000]"
    );
    Script {
        errors: vec![(Code::NotFound, text)],
        takes: Duration::from_millis(500),
        ..Script::default()
    }
}

fn spec() -> Value {
    json!({ "containers": [{ "name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent" }] })
}

fn attempts(bench: &Bench, start: Instant) -> Vec<u64> {
    bench
        .cri
        .pulls()
        .iter()
        .map(|pull| pull.at.duration_since(start).as_secs())
        .collect()
}

fn pulls(bench: &Bench) -> Value {
    let pod = bench.api.get("pods", "p").unwrap();
    let text = pod["metadata"]["annotations"]["towline.dev/pulls"]
        .as_str()
        .unwrap()
        .to_owned();
    serde_json::from_str::<Value>(&text).unwrap()["containers"][0].clone()
}

#[tokio::test(start_paused = true)]
async fn attempts_fall_into_the_windows_of_two_hours() {
    let bench = Bench::start(true).await;
    bench.cri.script(IMAGE, failing());
    let start = Instant::now();
    bench.pod("p", spec());
    bench.after(7200).await;
    let attempts = attempts(&bench, start);
    let first = attempts[0];
    // Ideal ends of windows; each attempt adds its pull and at most one sync period.
    let mut ideal = 0;
    let mut slack = 2;
    for (attempt, window) in attempts
        .iter()
        .zip([0, 10, 20, 40, 80, 160, 300, 300, 300, 300])
    {
        ideal += window;
        slack += 18;
        let at = attempt - first;
        assert!(
            at >= ideal && at <= ideal + slack,
            "attempt at {at}, window ends at {ideal}: {attempts:?}"
        );
    }
    assert!(
        (22..=29).contains(&attempts.len()),
        "{} attempts in two hours",
        attempts.len()
    );
    // 25 at once and one per 300 s, for each of the two types.
    let written = bench.api.events().len();
    assert!((90..=106).contains(&written), "{written} events written");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_annotation_and_the_condition_say_what_kubernetes_does_not() {
    let bench = Bench::start(false).await;
    bench.cri.script(IMAGE, failing());
    bench.pod("p", spec());
    bench.after(5).await;
    let pull = pulls(&bench);
    assert_eq!(pull["name"], "app");
    assert_eq!(
        (&pull["cause"], &pull["step"], &pull["attempt"]),
        (&json!("TagNotFound"), &json!("resolve"), &json!(1))
    );
    assert_eq!(pull["endpoint"], "http://127.0.0.1:5000");
    assert_eq!(
        pull["attemptId"].as_str(),
        bench.cri.pulls()[0].attempt.as_deref()
    );
    assert!(pull["nextAttempt"].as_str() > pull["lastAttempt"].as_str());
    let pod = bench.api.get("pods", "p").unwrap();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ours = conditions
        .iter()
        .find(|c| c["type"] == "towline.dev/ImagePull")
        .unwrap();
    assert_eq!(
        (&ours["status"], &ours["reason"]),
        (&json!("False"), &json!("TagNotFound"))
    );
    // The image comes: both say so.
    bench.cri.script(
        IMAGE,
        Script {
            size: 7,
            ..Script::default()
        },
    );
    bench.after(40).await;
    let pull = pulls(&bench);
    assert_eq!(
        (&pull["cause"], &pull["attempt"]),
        (&Value::Null, &json!(2))
    );
    let pod = bench.api.get("pods", "p").unwrap();
    assert_eq!(pod["status"]["phase"], "Running");
    let ours = pod["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "towline.dev/ImagePull")
        .unwrap();
    assert_eq!(ours["status"], "True");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_comes_is_tried_at_once_and_the_count_stays() {
    let bench = Bench::start(false).await;
    bench.cri.script(IMAGE, failing());
    let mut with_secret = spec();
    with_secret["imagePullSecrets"] = json!([{ "name": "ghost" }]);
    bench.pod("p", with_secret);
    bench.after(100).await;
    let before = bench.cri.pulls().len();
    let made = Instant::now();
    let config = json!({ "auths": { "127.0.0.1:5000": { "username": "bob", "password": "x" } } })
        .to_string();
    bench.api.put(
        "secrets",
        json!({
            "metadata": { "name": "ghost", "namespace": "default" },
            "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": k8s_openapi::ByteString(config.into_bytes()) },
        }),
    );
    bench.after(5).await;
    let attempts = bench.cri.pulls();
    assert_eq!(attempts.len(), before + 1, "one attempt out of turn");
    assert!(attempts[before].at.duration_since(made) <= Duration::from_secs(3));
    assert_eq!(
        (
            attempts[before].image.as_str(),
            attempts[before].user.as_deref()
        ),
        (IMAGE, Some("bob"))
    );
    let told = bench.distinct_events("p");
    let wanted = json!([
        "Normal",
        "RetryingEarly",
        format!(
            "Pulling image \"{IMAGE}\" before its back-off ends: pull secret \"ghost\" was created"
        ),
        "spec.containers{app}"
    ]);
    assert!(told.contains(&wanted), "{told:?}");
    // The window that was open still ends when it would have.
    bench.after(120).await;
    assert_eq!(bench.cri.pulls().len(), before + 2);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_can_ask_for_an_attempt_now() {
    for exact in [false, true] {
        let bench = Bench::start(exact).await;
        bench.cri.script(IMAGE, failing());
        bench.pod("p", spec());
        bench.after(100).await;
        let before = bench.cri.pulls().len();
        bench.api.patch(
            "pods",
            "p",
            &json!({ "metadata": { "annotations": { "towline.dev/retry-now": "1" } } }),
        );
        bench.after(5).await;
        assert_eq!(bench.cri.pulls().len() - before, usize::from(!exact));
        bench.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_image_starts_afresh() {
    let bench = Bench::start(true).await;
    bench.cri.script(IMAGE, failing());
    bench.pod("p", spec());
    bench.after(100).await;
    let good = "127.0.0.1:5000/a/b:2";
    bench.cri.script(
        good,
        Script {
            image_ref: "127.0.0.1:5000/a/b@sha256:2".into(),
            ..Script::default()
        },
    );
    let containers = json!([{ "name": "app", "image": good, "imagePullPolicy": "IfNotPresent" }]);
    bench.api.patch(
        "pods",
        "p",
        &json!({ "spec": { "containers": containers } }),
    );
    bench.after(5).await;
    let pod = bench.api.get("pods", "p").unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&pod["status"]["phase"], &status["imageID"]),
        (&json!("Running"), &json!("127.0.0.1:5000/a/b@sha256:2"))
    );
    assert!(
        status["containerID"]
            .as_str()
            .unwrap()
            .starts_with("containerd://")
    );
    bench.stop().await;
}
