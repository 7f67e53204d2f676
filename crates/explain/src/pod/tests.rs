//! Pods explained: a cluster by script, and a registry on loopback that refuses, lacks or has.

mod again;
mod bench;
mod limit;
mod workloads;

use serde_json::{Value, json};
use towline_cause::{Cause, Confidence};

use crate::{Diagnosis, scan};
use bench::{Cluster, Door, counting, list, registry};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A pod of namespace `shop` on node `n1` that waits for its image, or is being made.
fn pod(image: &str, waiting: &Value, secrets: &[&str]) -> Value {
    let named: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web", "uid": "u1"},
        "spec": {
            "nodeName": "n1",
            "imagePullSecrets": named,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
        "status": {"phase": "Pending", "containerStatuses": [status("app", image, waiting)]},
    })
}

fn status(name: &str, image: &str, waiting: &Value) -> Value {
    json!({
        "name": name, "image": image, "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting},
    })
}

fn event(reason: &str, container: Option<&str>, message: &str, at: &str) -> Value {
    let path = container.map(|name| format!("spec.containers{{{name}}}"));
    json!({
        "metadata": {"namespace": "shop", "name": format!("web.{reason}")},
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web", "uid": "u1", "fieldPath": path},
        "reason": reason, "message": message, "count": 3, "lastTimestamp": at,
    })
}

fn backoff(image: &str, words: &str) -> Value {
    json!({"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\": ErrImagePull: {words}")})
}

async fn explain(cluster: &Cluster) -> Diagnosis {
    let mut all = crate::pod::explain(&cluster.context(), "shop", "web")
        .await
        .unwrap();
    all.remove(0)
}

fn facts(diagnosis: &Diagnosis) -> String {
    let facts = diagnosis.evidence.iter().map(|one| one.fact.as_str());
    facts.collect::<Vec<_>>().join("\n")
}

fn commands(diagnosis: &Diagnosis) -> String {
    let commands = diagnosis.fixes.iter().flat_map(|fix| fix.commands.clone());
    commands.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_refusal_here_says_nothing_of_what_came_behind_the_login_there() {
    let host = registry(Door::Shut).await;
    let image = format!("{host}/team/app:v9");
    let full = format!(
        "failed to pull and unpack image \"{image}\": failed to extract layer sha256:{}: mount callback failed on /tmp/x: write /tmp/x/y: no space left on device",
        "a".repeat(64)
    );
    let missing = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
    );
    for (words, secrets, want) in [
        (&full, &[][..], Cause::NoSpaceLeft),
        (&missing, &["stale"][..], Cause::TagNotFound),
    ] {
        let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, words), secrets), &[]);
        let told = explain(&cluster).await;
        assert_eq!(told.cause, Some(want), "{told:?}");
        assert_ne!(told.confidence, Confidence::Proven);
        assert!(!told.alternatives.contains(&Cause::NoCredentials));
        assert!(facts(&told).contains("the node was let in where this machine is refused"));
        assert!(!commands(&told).contains("create secret"), "{told:?}");
        let decides = told.decided_by[0].command.as_deref().unwrap();
        assert!(decides.ends_with("--from-node n1"), "{decides}");
    }
    // Where the node was refused too, the secrets decide as ever.
    let refused = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": unexpected status from HEAD request to http://{host}/v2/team/app/manifests/v9: 401 Unauthorized"
    );
    let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, &refused), &["stale"]), &[]);
    assert_eq!(
        explain(&cluster).await.cause,
        Some(Cause::PullSecretMissing)
    );
}

#[tokio::test]
async fn who_waits_and_says_no_longer_why_is_not_said_to_pull() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let bare = json!({"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\"")});
    for waiting in [bare, json!({"reason": "ErrImagePull", "message": ""})] {
        let cluster = Cluster::default().pod(&pod(&image, &waiting, &[]), &[]);
        let told = explain(&cluster).await;
        assert_eq!((told.pulls, told.cause), (false, Some(Cause::Unknown)));
        assert!(told.summary.contains("no longer why"), "{}", told.summary);
        assert!(told.retry.as_ref().unwrap().waiting_helps);
        assert!(!told.decided_by.is_empty());
        let asked = [scan::Ask::Namespace("shop".to_owned())];
        let scan = scan::explain(&cluster.context(), &asked).await.unwrap();
        assert_eq!((scan.waiting, scan.undecided), (1, 1), "{scan:?}");
    }
    // Words that nobody can read are no better.
    let riddle = backoff(&image, "flux capacitor failed");
    let told = explain(&Cluster::default().pod(&pod(&image, &riddle, &[]), &[])).await;
    assert_eq!(told.cause, Some(Cause::Unknown));
    assert!(
        told.summary.contains("name no known cause"),
        "{}",
        told.summary
    );
    // A pod that is being made pulls; so does one whose kubelet still speaks of the image before.
    let before = json!({"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{host}/team/app:v0\"")});
    for waiting in [json!({"reason": "ContainerCreating"}), before] {
        let cluster = Cluster::default().pod(&pod(&image, &waiting, &[]), &[]);
        assert!(explain(&cluster).await.pulls, "{waiting}");
    }
}

#[tokio::test]
async fn what_is_there_by_now_is_not_called_missing() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let missing = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
    );
    let ours = format!(
        "{image}: there is no repository team/app [towline: cause=RepositoryNotFound step=resolve endpoint=http://{host}]"
    );
    for words in [&missing, &ours] {
        let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, words), &[]), &[]);
        let told = explain(&cluster).await;
        assert!(!told.pulls);
        assert!(told.confidence <= Confidence::Likely, "{told:?}");
        assert!(told.summary.contains("it is by now"), "{}", told.summary);
        assert!(told.retry.as_ref().unwrap().waiting_helps);
        assert!(!commands(&told).contains("set image"), "{told:?}");
        assert!(told.fixes[0].description.contains("next attempt"));
        assert!(!serde_json::to_string(&told).unwrap().contains("[towline:"));
    }
}

#[tokio::test]
async fn a_summary_in_the_runtimes_words_has_no_suffix() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let pulls = json!({"apiVersion": "towline.dev/v1", "kind": "Pulls", "containers": [{
        "name": "app", "image": image, "attempt": 2, "cause": "ConnectionTimeout", "step": "connect",
        "message": format!("{host}: no answer [towline: cause=ConnectionTimeout step=connect]"),
    }]});
    let mut pod = pod(&image, &backoff(&image, "x"), &[]);
    pod["metadata"]["annotations"] = json!({towline_pod::pulls::ANNOTATION: pulls.to_string()});
    let told = explain(&Cluster::default().pod(&pod, &[])).await;
    assert_eq!(told.cause, Some(Cause::ConnectionTimeout), "{told:?}");
    assert_eq!(told.summary, format!("{host}: no answer"));
}

#[tokio::test]
async fn a_sandbox_without_its_image_is_seen() {
    let pause = format!("{}/pause:3.9", registry(Door::Empty).await);
    let message = format!(
        "Failed to create pod sandbox: rpc error: code = DeadlineExceeded desc = failed to get sandbox image \"{pause}\": failed to pull image \"{pause}\": failed to pull and unpack image \"{pause}\": failed to resolve reference \"{pause}\": failed to do request: Head \"https://{pause}\": dial tcp 34.96.108.209:443: i/o timeout"
    );
    let creating = json!({"reason": "ContainerCreating"});
    let sandbox = event(
        "FailedCreatePodSandBox",
        None,
        &message,
        "2026-11-24T10:05:00Z",
    );
    for door in [Door::Full, Door::Shut, Door::Empty] {
        let image = format!("{}/team/app:v1", registry(door).await);
        let pod = pod(&image, &creating, &[]);
        let told = explain(&Cluster::default().pod(&pod, std::slice::from_ref(&sandbox))).await;
        assert_eq!(
            told.cause,
            Some(Cause::SandboxImageUnavailable),
            "{door:?} {told:?}"
        );
    }
    // One that was made since is over.
    let image = format!("{}/team/app:v1", registry(Door::Full).await);
    let pulling = event(
        "Pulling",
        Some("app"),
        "Pulling image",
        "2026-11-24T10:06:00Z",
    );
    let cluster = Cluster::default().pod(&pod(&image, &creating, &[]), &[sandbox, pulling]);
    assert!(explain(&cluster).await.pulls);
}

#[tokio::test]
async fn ephemeral_containers_and_image_volumes_have_images_too() {
    let host = registry(Door::Empty).await;
    let image = format!("{host}/team/app:v1");
    let other = format!("{host}/team/tools:v1");
    let running = json!({"name": "app", "image": image, "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let words = format!(
        "failed to pull and unpack image \"{other}\": failed to resolve reference \"{other}\": {other}: not found"
    );
    let mut debugged = pod(&image, &json!({}), &[]);
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": other}]);
    debugged["status"]["phase"] = json!("Running");
    debugged["status"]["containerStatuses"] = json!([running]);
    debugged["status"]["ephemeralContainerStatuses"] =
        json!([status("debugger", &other, &backoff(&other, &words))]);
    let mut mounting = pod(&image, &backoff(&other, &words), &[]);
    mounting["spec"]["volumes"] = json!([{"name": "data", "image": {"reference": other}}]);
    mounting["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    for (pod, part) in [
        (debugged, "ephemeral container \"debugger\""),
        (mounting.clone(), "volume \"data\""),
    ] {
        let cluster = Cluster::default().pod(&pod, &[]);
        let asked = [scan::Ask::Namespace("shop".to_owned())];
        let scan = scan::explain(&cluster.context(), &asked).await.unwrap();
        let of = |one: &&Diagnosis| one.target.image == other;
        let told = scan
            .items
            .iter()
            .find(of)
            .unwrap_or_else(|| panic!("{part}: {scan:?}"));
        assert_eq!(told.cause, Some(Cause::TagNotFound), "{told:?}");
        assert!(facts(told).contains(part), "{}", facts(told));
        assert!(!commands(told).contains("set image"));
    }
    // A pod whose containers run has the images of its volumes.
    mounting["status"]["phase"] = json!("Running");
    mounting["status"]["containerStatuses"] = json!([running]);
    let told = explain(&Cluster::default().pod(&mounting, &[])).await;
    assert!(told.pulls, "{told:?}");
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_stays_in_question() {
    let host = registry(Door::Shut).await;
    let image = format!("{host}/team/app:v1");
    let refused = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": unexpected status from HEAD request to http://{host}/v2/team/app/manifests/v1: 401 Unauthorized"
    );
    let cluster = Cluster::default()
        .pod(&pod(&image, &backoff(&image, &refused), &["regcred"]), &[])
        .forbidding("/api/v1/namespaces/shop/secrets/regcred");
    let told = explain(&cluster).await;
    for open in [
        Cause::PullSecretMissing,
        Cause::PullSecretMalformed,
        Cause::PullSecretWrongHost,
    ] {
        assert!(told.alternatives.contains(&open), "{told:?}");
    }
    assert_ne!(told.confidence, Confidence::Proven);
    assert!(!commands(&told).contains("create secret"), "{told:?}");
    assert!(commands(&told).contains("get secret regcred"), "{told:?}");
}

#[tokio::test]
async fn pods_of_a_deployment_are_found_without_the_right_to_read_replica_sets() {
    let host = registry(Door::Empty).await;
    let image = format!("{host}/team/app:v1");
    let words = format!(
        "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
    );
    let mut pod = pod(&image, &backoff(&image, &words), &[]);
    pod["metadata"]["labels"] = json!({"app": "api", "pod-template-hash": "5d8f"});
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-5d8f", "uid": "r1", "controller": true,
    }]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "api", "uid": "d1"},
        "spec": {
            "selector": {"matchLabels": {"app": "api"}},
            "template": {"spec": {"containers": [{"name": "app", "image": "another.test/x:v1"}]}},
        },
    });
    let cluster = Cluster::default()
        .pod(&pod, &[])
        .with("/apis/apps/v1/namespaces/shop/deployments/api", deployment)
        .forbidding("/apis/apps/v1/namespaces/shop/replicasets/api-5d8f");
    let asked = [scan::Ask::Workload {
        kind: scan::Workload::Deployment,
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
    }];
    let scan = scan::explain(&cluster.context(), &asked).await.unwrap();
    let told = &scan.items[0];
    assert_eq!(
        (scan.pods, told.target.kind.as_str()),
        (1, "Pod"),
        "{scan:?}"
    );
    let owner = told.target.owner.as_ref().unwrap();
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Deployment", "api")
    );
    let note = told
        .unread
        .iter()
        .find(|note| note.contains("replicaset shop/api-5d8f"));
    assert!(
        note.is_some_and(|note| note.contains("403")),
        "{:?}",
        told.unread
    );
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_no_all_clear() {
    let names = |names: &[&str]| {
        let items: Vec<Value> = names
            .iter()
            .map(|name| json!({"metadata": {"name": name}}))
            .collect();
        list(&items)
    };
    let scan = async |cluster: Cluster, name: &str| {
        let asked = [scan::Ask::Namespace(name.to_owned())];
        scan::explain(&cluster.context(), &asked).await
    };
    let all = Cluster::default().with("/api/v1/namespaces", names(&["shop", "default"]));
    let shop = json!({"metadata": {"name": "shop"}});
    let there = all.clone().with("/api/v1/namespaces/shop", shop);
    assert_eq!(scan(there.clone(), "shop").await.unwrap().pods, 0);
    let told = scan(there, "shpo").await.unwrap_err();
    assert_eq!(told.to_string(), "there is no namespace \"shpo\"");
    assert!(matches!(told, crate::pod::ExplainError::NoNamespace { near, .. } if near == ["shop"]));
    let unread = Cluster::default()
        .forbidding("/api/v1/namespaces")
        .forbidding("/api/v1/namespaces/shop");
    // Who may read pods and no namespaces gets an answer, and what it does not know.
    let told = scan(unread, "shop").await.unwrap();
    assert_eq!(told.pods, 0);
    assert_eq!(
        told.scope,
        "namespace shop (whether it exists may not be read: 403 Forbidden)"
    );
}

#[tokio::test]
async fn who_follows_pods_asks_registries_seldom() {
    let (host, asked) = counting(Door::Empty).await;
    let image = format!("{host}/team/app:v1");
    let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, "boom"), &[]), &[]);
    let context = cluster.context();
    let asks = [scan::Ask::Namespace("shop".to_owned())];
    let memory = scan::Memory::new(&context);
    let look = async || {
        let scan = scan::explain_again(&context, &asks, &memory).await.unwrap();
        assert_eq!(scan.items[0].cause, Some(Cause::TagNotFound), "{scan:?}");
        (asked.load(Ordering::Relaxed), scan.asked[0].requests)
    };
    let first = look().await;
    for _ in 0..5 {
        assert_eq!(look().await, first, "nothing is asked again at once");
    }
    // Later it is, and counts for the budget; what stays the same is asked ever more rarely.
    let at = |seconds| Instant::now() + Duration::from_secs(seconds);
    memory.forget(at(31));
    let second = look().await;
    assert_eq!(second, (2 * first.0, 2 * first.1));
    memory.forget(at(31));
    assert_eq!(look().await.0, 3 * first.0);
    memory.forget(at(31));
    assert_eq!(look().await.0, 3 * first.0, "it has said the same twice");
    memory.forget(at(61));
    assert_eq!(look().await.0, 4 * first.0);
}

#[tokio::test]
async fn a_registry_that_is_asked_too_often_is_left_alone_by_who_follows_pods() {
    let (host, asked) = counting(Door::Busy).await;
    let image = format!("{host}/team/app:v1");
    let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, "boom"), &[]), &[]);
    let context = cluster.context();
    let asks = [scan::Ask::Namespace("shop".to_owned())];
    let memory = scan::Memory::new(&context);
    let look = async || {
        let scan = scan::explain_again(&context, &asks, &memory).await.unwrap();
        assert_eq!(scan.items[0].cause, Some(Cause::RateLimited), "{scan:?}");
        asked.load(Ordering::Relaxed)
    };
    let first = look().await;
    let at = |seconds| Instant::now() + Duration::from_secs(seconds);
    for seconds in [31, 61, 200, 290] {
        memory.forget(at(seconds));
        assert_eq!(look().await, first, "after {seconds} s");
    }
    memory.forget(at(301));
    assert!(look().await > first);
}

#[tokio::test]
async fn who_may_not_read_nodes_does_not_wait_for_another_platform() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let words = format!(
        "failed to pull and unpack image \"{image}\": no match for platform in manifest: not found"
    );
    let cluster = Cluster::default().pod(&pod(&image, &backoff(&image, &words), &[]), &[]);
    let node = json!({
        "metadata": {"name": "n1"},
        "status": {"nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "bootID": "b", "machineID": "", "systemUUID": "",
            "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
        }},
    });
    let known = explain(&cluster.clone().with("/api/v1/nodes/n1", node)).await;
    let unread = explain(&cluster.forbidding("/api/v1/nodes/n1")).await;
    assert_eq!(unread.cause, Some(Cause::PlatformMismatch), "{unread:?}");
    let waits = |told: &Diagnosis| told.retry.as_ref().is_some_and(|retry| retry.waiting_helps);
    assert!(waits(&known), "{known:?}");
    assert!(!waits(&unread), "{unread:?}");
}

#[tokio::test]
async fn a_new_name_for_a_secret_is_looked_for_where_one_is_made() {
    let host = registry(Door::Shut).await;
    let image = format!("{host}/team/app:v1");
    let refused = format!("failed to resolve reference \"{image}\": 401 Unauthorized");
    let cluster = |secrets: &[&str]| {
        Cluster::default().pod(&pod(&image, &backoff(&image, &refused), secrets), &[])
    };
    let path = "/api/v1/namespaces/shop/secrets/regcred".to_owned();
    let none = cluster(&[]);
    assert_eq!(explain(&none).await.cause, Some(Cause::NoCredentials));
    assert!(none.asked().contains(&path));
    let missing = cluster(&["stale"]);
    let told = explain(&missing).await;
    assert_eq!(told.cause, Some(Cause::PullSecretMissing));
    assert!(!missing.asked().contains(&path), "{:?}", missing.asked());
}
