//! Events and statuses in order, letter for letter, as a real node (Kubernetes 1.36.2, containerd 2.1.9) showed them.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use crate::bench::Bench;
use crate::cri::Script;

const GOLDENS: &str = include_str!("goldens.jsonl");

fn golden(pod: &str) -> Value {
    let lines = GOLDENS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .into_iter()
        .find(|golden| golden["pod"] == pod)
        .unwrap()
}

fn code(name: &str) -> Code {
    match name {
        "NotFound" => Code::NotFound,
        "Unknown" => Code::Unknown,
        other => panic!("code {other} in a golden"),
    }
}

/// Makes the runtime answer as it did then.
fn script(bench: &Bench, golden: &Value) {
    let spec = &golden["spec"];
    let lists = [&spec["initContainers"], &spec["containers"]];
    let containers: Vec<&Value> = lists
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .collect();
    let statuses = golden["status"].as_array().unwrap();
    for container in &containers {
        let image = container["image"].as_str().unwrap();
        let last = statuses
            .iter()
            .rev()
            .map(|status| &status["containers"][container["name"].as_str().unwrap()]);
        let last = last
            .into_iter()
            .find(|status| status["imageID"].as_str().is_some_and(|id| !id.is_empty()));
        let image_ref = last.and_then(|status| status["imageID"].as_str());
        let name = last.and_then(|status| status["image"].as_str());
        let errors: Vec<(Code, String)> = golden["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| {
                (
                    code(error[0].as_str().unwrap()),
                    error[1].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let size = golden["events"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|event| {
                let text = event[2].as_str()?.split("Image size: ").nth(1)?;
                text.split(' ').next()?.parse().ok()
            });
        let fine =
            container["name"] == "ok" || (container["name"] == "app" && containers.len() > 1);
        bench.cri.script(
            image,
            Script {
                errors: if fine { Vec::new() } else { errors },
                takes: Duration::from_millis(golden["tookMillis"].as_u64().unwrap()),
                image_ref: image_ref.unwrap_or_default().to_owned(),
                size: size.unwrap_or(1),
                name: name.unwrap_or_default().to_owned(),
                present: fine,
            },
        );
    }
}

fn secret(name: &str) -> Option<Value> {
    let login = |host: &str, password: &str| {
        json!({ "auths": { host: { "username": "u", "password": password } } }).to_string()
    };
    let config = match name {
        "good" => login("127.0.0.1:5998", "right"),
        "wrongpass" => login("127.0.0.1:5998", "wrong"),
        "malformed" => r#"{"auths":{"127.0.0.1:5998":{"auth":"%%%"}}}"#.to_owned(),
        _ => return None,
    };
    Some(json!({
        "metadata": { "name": name, "namespace": "default" },
        "type": "kubernetes.io/dockerconfigjson",
        "data": { ".dockerconfigjson": k8s_openapi::ByteString(config.into_bytes()) },
    }))
}

/// A status in the goldens' form.
fn condense(pod: &Value) -> Value {
    let mut conditions = serde_json::Map::new();
    for condition in pod["status"]["conditions"].as_array().unwrap() {
        let value = json!([
            condition["status"],
            condition["reason"],
            condition["message"]
        ]);
        conditions.insert(condition["type"].as_str().unwrap().to_owned(), value);
    }
    let mut containers = serde_json::Map::new();
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in pod["status"][list].as_array().into_iter().flatten() {
            let mut short = serde_json::Map::new();
            for key in [
                "state",
                "ready",
                "started",
                "restartCount",
                "image",
                "imageID",
            ] {
                short.insert(key.to_owned(), status[key].clone());
            }
            containers.insert(
                status["name"].as_str().unwrap().to_owned(),
                Value::Object(short),
            );
        }
    }
    let mut condensed = json!({ "phase": pod["status"]["phase"], "conditions": conditions, "containers": containers });
    forget_times(&mut condensed);
    condensed
}

fn forget_times(status: &mut Value) {
    for (_, container) in status["containers"].as_object_mut().unwrap() {
        for (_, state) in container["state"].as_object_mut().unwrap() {
            if let Some(state) = state.as_object_mut() {
                state.remove("startedAt");
                state.remove("finishedAt");
            }
        }
    }
}

fn statuses(bench: &Bench, pod: &str) -> Vec<Value> {
    let written = bench.api.history(pod).into_iter();
    let mut condensed: Vec<Value> = written
        .filter(|pod| pod["status"]["containerStatuses"].is_array())
        .map(|pod| condense(&pod))
        .collect();
    condensed.dedup();
    condensed
}

/// `in 242ms (245ms including` differs from run to run.
fn forget_durations(text: &str) -> String {
    match (text.find(" in "), text.find(" including waiting")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    }
}

/// Plays one pod and compares.
async fn play(pod: &str) {
    let golden = golden(pod);
    let bench = Bench::start(true).await;
    script(&bench, &golden);
    for reference in golden["spec"]["imagePullSecrets"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if let Some(secret) = secret(reference["name"].as_str().unwrap()) {
            bench.api.put("secrets", secret);
        }
    }
    bench.pod(pod, golden["spec"].clone());
    bench.after(200).await;
    let mut wanted: Vec<Value> = golden["status"].as_array().unwrap().clone();
    wanted.iter_mut().for_each(forget_times);
    let shown = statuses(&bench, pod);
    // The recorder of the goldens may have missed one that was soon replaced; nothing that it saw may be missing or out of order.
    let mut rest = shown.iter();
    for (index, wanted) in wanted.iter().enumerate().take(6) {
        assert!(
            rest.any(|shown| shown == wanted),
            "{pod}: status {index} {wanted} in {}",
            json!(shown)
        );
    }
    let events = |events: &[Value]| {
        events
            .iter()
            .map(|event| forget_durations(&event.to_string()))
            .collect::<Vec<_>>()
    };
    let wanted = golden["events"].as_array().unwrap();
    assert_eq!(
        events(&bench.distinct_events(pod)),
        events(wanted),
        "{pod}: events"
    );
    bench.stop().await;
}

macro_rules! goldens {
    ($($test:ident: $pod:literal;)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $test() {
            play($pod).await;
        })*
    };
}

goldens! {
    good: "good";
    typo_tag: "typo-tag";
    no_credentials: "private-nocred";
    missing_secret: "private-ghost";
    wrong_password: "private-wrongpass";
    two_secrets: "private-two";
    malformed_secret: "private-malformed";
    good_secret: "private-good";
    name_not_found: "dns";
    upper_case: "upper";
    never: "never";
    init_container: "init-typo";
    two_containers: "two";
    digest: "digest";
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_waits_ends_as_failed() {
    let golden = golden("web-68d746c8c7-hx2zf");
    let bench = Bench::start(true).await;
    script(&bench, &golden);
    bench.pod("web", golden["spec"].clone());
    bench.after(60).await;
    let deletion = json!({ "metadata": { "deletionTimestamp": "2026-11-22T13:48:30Z", "deletionGracePeriodSeconds": 30 } });
    bench.api.patch("pods", "web", &deletion);
    bench.after(20).await;
    assert_eq!(bench.api.get("pods", "web"), None, "the object is deleted");
    let shown = statuses(&bench, "web");
    let mut wanted = golden["status"].as_array().unwrap().clone();
    wanted.iter_mut().for_each(forget_times);
    assert_eq!(shown[shown.len() - 3..], wanted[wanted.len() - 3..]);
    assert!(
        bench.cri.state.lock().unwrap().sandboxes.is_empty(),
        "nothing is left in the runtime"
    );
    bench.stop().await;
}
