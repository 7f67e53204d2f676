//! Workloads without pods, and all workloads of a kind.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use towline_cause::{Cause, Confidence};

use super::bench::{Cluster, Door, counting, list, registry};
use crate::scan::{self, Ask, Scan, Workload};

fn deployment(name: &str, image: &str, spec: &Value, status: &Value) -> Value {
    let mut whole = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"spec": {"containers": [{"name": "app", "image": image}]}},
        },
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    whole
}

async fn explain(cluster: &Cluster, ask: Ask) -> Scan {
    scan::explain(&cluster.context(), &[ask]).await.unwrap()
}

fn named(name: &str) -> Ask {
    Ask::Workload {
        kind: Workload::Deployment,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn a_workload_without_pods_is_explained_by_its_template_and_why_it_has_none() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let refused = |message: &str| json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]});
    let quota = r#"pods "web-7d9f-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4"#;
    let webhook = r#"admission webhook "validate.kyverno.svc-fail" denied the request: image registry is not allowed"#;
    for (spec, status, pulls, words) in [
        (
            json!({"replicas": 0}),
            json!({}),
            true,
            "no pod is there: the deployment is scaled to 0",
        ),
        (
            json!({"replicas": 2}),
            refused(quota),
            true,
            "exceeded quota: small",
        ),
        (
            json!({"replicas": 2}),
            refused(webhook),
            false,
            "denied the request",
        ),
        (json!({"replicas": 2}), json!({}), true, "nothing says why"),
    ] {
        let cluster = Cluster::default().with(
            "/apis/apps/v1/namespaces/shop/deployments/web",
            deployment("web", &image, &spec, &status),
        );
        let told = explain(&cluster, named("web")).await;
        let [one] = &told.items[..] else {
            panic!("{told:?}")
        };
        assert_eq!(one.pulls, pulls, "{one:?}");
        assert!(one.summary.contains(words), "{}", one.summary);
        assert_eq!(one.target.kind, "Deployment");
        if !pulls {
            assert_eq!(one.cause, Some(Cause::AdmissionDenied));
            assert!(one.confidence >= Confidence::Likely);
            let by = one
                .evidence
                .iter()
                .find(|line| line.fact.contains(words))
                .unwrap();
            assert_eq!(by.seen_by, "the workload's controller");
        }
        assert_eq!(told.pods, 0);
    }
}

#[tokio::test]
async fn events_tell_of_pods_that_could_not_be_made() {
    let host = registry(Door::Empty).await;
    let image = format!("{host}/team/app:v1");
    let event = |object: &str, message: &str| {
        json!({
            "metadata": {"namespace": "shop", "name": format!("{object}.1")},
            "involvedObject": {"kind": "ReplicaSet", "namespace": "shop", "name": object},
            "reason": "FailedCreate", "message": message, "lastTimestamp": "2026-11-30T12:00:00Z",
        })
    };
    let cluster = Cluster::default()
        .with(
            "/apis/apps/v1/namespaces/shop/deployments/web",
            deployment("web", &image, &json!({"replicas": 1}), &json!({})),
        )
        .with(
            "/api/v1/namespaces/shop/events",
            list(&[
                event("web-7d9f", "Error creating: exceeded quota: small"),
                event("web-api-5c6d", "Error creating: another's"),
            ]),
        );
    let told = explain(&cluster, named("web")).await;
    let one = &told.items[0];
    // What is wrong with the image stays the answer; that there is no pod stands beside it.
    assert_eq!(one.cause, Some(Cause::TagNotFound), "{one:?}");
    let facts: Vec<&str> = one.evidence.iter().map(|line| line.fact.as_str()).collect();
    assert!(
        facts.contains(&"no pod can be made: Error creating: exceeded quota: small"),
        "{facts:?}"
    );
}

#[tokio::test]
async fn workloads_whose_pods_are_refused_are_found_with_the_pods() {
    let host = registry(Door::Full).await;
    let image = format!("{host}/team/app:v1");
    let webhook = r#"Error creating: admission webhook "validate.kyverno.svc-fail" denied the request: image registry is not allowed"#;
    let event = |set: &str, message: &str| {
        json!({
            "metadata": {"namespace": "shop", "name": format!("{set}.1")},
            "involvedObject": {"kind": "ReplicaSet", "namespace": "shop", "name": set},
            "reason": "FailedCreate", "message": message, "lastTimestamp": "2026-11-30T12:00:00Z",
        })
    };
    let set = |name: &str, of: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": of, "uid": of, "controller": true}]},
        })
    };
    let events = list(&[
        event("web-7d9f", webhook),
        event("web-5c6d", webhook),
        event("api-1", "Error creating: exceeded quota: small"),
        event("gone-1", webhook),
    ]);
    let sets = "/apis/apps/v1/namespaces/shop/replicasets";
    let mut cluster = Cluster::default()
        .with("/api/v1/events", events.clone())
        .with("/api/v1/namespaces/shop/events", events);
    for (name, of) in [("web-7d9f", "web"), ("web-5c6d", "web"), ("api-1", "api")] {
        cluster = cluster.with(&format!("{sets}/{name}"), set(name, of)).with(
            &format!("/apis/apps/v1/namespaces/shop/deployments/{of}"),
            deployment(of, &image, &json!({"replicas": 1}), &json!({})),
        );
    }
    for ask in [Ask::Cluster, Ask::Namespace("shop".to_owned())] {
        let cluster = cluster.clone().with(
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop"}}),
        );
        let told = explain(&cluster, ask).await;
        let [one] = &told.items[..] else {
            panic!("{told:?}")
        };
        assert_eq!(one.target.name, "web");
        assert_eq!(one.cause, Some(Cause::AdmissionDenied), "{one:?}");
    }
    // Who may not look there hears of it, and of the pods all the same.
    let told = explain(
        &cluster
            .clone()
            .forbidding(sets)
            .forbidding(&format!("{sets}/web-7d9f")),
        Ask::Cluster,
    )
    .await;
    assert!(told.scope.contains("403 Forbidden"), "{}", told.scope);
    let told = explain(&cluster.forbidding("/api/v1/events"), Ask::Cluster).await;
    assert_eq!(
        told.scope,
        "all namespaces (workloads whose pods cannot be made are not told: events: 403 Forbidden)"
    );
}

/// A pod that this replica set or job made, and whose image is there or waited for.
fn made(name: &str, image: &str, owner: &Value, there: bool) -> Value {
    let state = if there {
        json!({"running": {}})
    } else {
        json!({"waiting": {"reason": "ErrImagePull", "message": "boom"}})
    };
    let mut owner = owner.clone();
    owner["controller"] = json!(true);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "ownerReferences": [owner]},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": image}]},
        "status": {"phase": "Pending", "containerStatuses": [{
            "name": "app", "image": image, "imageID": "", "ready": there, "restartCount": 0, "state": state,
        }]},
    })
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    let group = if kind == "Job" || kind == "CronJob" {
        "batch/v1"
    } else {
        "apps/v1"
    };
    json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// An object of this kind in the namespace, made by another.
fn of(kind: &str, name: &str, by: &[Value], image: &str, rest: &Value) -> Value {
    let mut whole = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"namespace": "shop", "name": name, "uid": name, "ownerReferences": by, "creationTimestamp": "2026-11-30T12:00:00Z"},
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
    });
    for part in ["spec", "status"] {
        for (key, value) in rest[part].as_object().into_iter().flatten() {
            whole[part][key] = value.clone();
        }
    }
    whole
}

fn count(cluster: &Cluster, path: &str) -> usize {
    cluster.asked().iter().filter(|one| *one == path).count()
}

#[tokio::test]
async fn what_all_workloads_share_is_read_once_and_healthy_ones_cost_nothing() {
    let (full, asked) = counting(Door::Full).await;
    let empty = registry(Door::Empty).await;
    let good = format!("{full}/team/good:v1");
    let bad = format!("{empty}/team/bad:v1");
    let set = |name: &str, by: &str| {
        of(
            "ReplicaSet",
            name,
            &[owner("Deployment", by, by)],
            &good,
            &json!({}),
        )
    };
    let none = json!({});
    let by = |set: &str| owner("ReplicaSet", set, set);
    let cluster = Cluster::default()
        .with(
            "/apis/apps/v1/deployments",
            list(&[
                deployment("good", &good, &none, &none),
                deployment("bad", &bad, &none, &none),
                deployment("a", &good, &json!({"replicas": 1}), &none),
                deployment("b", &good, &json!({"replicas": 1}), &none),
            ]),
        )
        .with(
            "/apis/apps/v1/replicasets",
            list(&[set("good-1", "good"), set("bad-1", "bad")]),
        )
        .with(
            "/api/v1/pods",
            list(&[
                made("good-1-x", &good, &by("good-1"), true),
                made("bad-1-x", &bad, &by("bad-1"), false),
                made("alien", &bad, &by("alien-1"), false),
            ]),
        );
    let all = || Ask::Workloads {
        kind: Workload::Deployment,
        namespace: None,
    };
    let told = explain(&cluster, all()).await;
    assert_eq!((told.pods, told.waiting), (2, 1), "{told:?}");
    let [one] = &told.items[..] else {
        panic!("{told:?}")
    };
    assert_eq!(one.cause, Some(Cause::TagNotFound));
    assert_eq!(one.affected.as_ref().unwrap().pods, ["shop/bad-1-x"]);
    for path in ["/api/v1/pods", "/apis/apps/v1/replicasets"] {
        assert_eq!(count(&cluster, path), 1, "{path}");
    }
    // Of two workloads without pods the image is asked for, of the one that runs it is not.
    let two = asked.load(Ordering::Relaxed);
    let alone = cluster.clone().with(
        "/apis/apps/v1/deployments",
        list(&[deployment("good", &good, &none, &none)]),
    );
    assert_eq!(explain(&alone, all()).await.pods, 1);
    assert_eq!(asked.load(Ordering::Relaxed), two);
}

#[tokio::test]
async fn who_may_not_list_replica_sets_goes_by_their_names() {
    let image = format!("{}/team/app:v1", registry(Door::Empty).await);
    let by = owner("ReplicaSet", "web-1", "web-1");
    let mut pod = made("web-1-x", &image, &by, false);
    pod["metadata"]["labels"] = json!({"pod-template-hash": "1"});
    let cluster = Cluster::default()
        .with(
            "/apis/apps/v1/deployments",
            list(&[deployment("web", &image, &json!({}), &json!({}))]),
        )
        .with("/api/v1/pods", list(&[pod]))
        .forbidding("/apis/apps/v1/replicasets");
    let ask = Ask::Workloads {
        kind: Workload::Deployment,
        namespace: None,
    };
    let told = explain(&cluster, ask).await;
    assert_eq!((told.pods, told.waiting), (1, 1), "{told:?}");
}

#[tokio::test]
async fn what_is_past_is_not_looked_at() {
    let host = registry(Door::Empty).await;
    let image = format!("{host}/team/app:v1");
    let over = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let cron = owner("CronJob", "nightly", "nightly");
    let cluster = Cluster::default()
        .with(
            "/apis/apps/v1/replicasets",
            list(&[
                of(
                    "ReplicaSet",
                    "old",
                    &[owner("Deployment", "web", "web")],
                    &image,
                    &json!({"spec": {"replicas": 0}}),
                ),
                of(
                    "ReplicaSet",
                    "own",
                    &[],
                    &image,
                    &json!({"spec": {"replicas": 0}}),
                ),
            ]),
        )
        .with(
            "/apis/batch/v1/jobs",
            list(&[
                of("Job", "done", &[], &image, &over),
                of("Job", "open", &[], &image, &json!({})),
                of(
                    "Job",
                    "nightly-1",
                    std::slice::from_ref(&cron),
                    &image,
                    &over,
                ),
            ]),
        )
        .with(
            "/apis/batch/v1/cronjobs",
            list(&[
                of("CronJob", "nightly", &[], &image, &json!({})),
                of("CronJob", "daily", &[], &image, &json!({})),
            ]),
        );
    for (kind, want) in [
        (Workload::ReplicaSet, &["replicaset/own"][..]),
        (Workload::Job, &["job/open"]),
        // The next job of a cron job pulls again.
        (Workload::CronJob, &["job/nightly-1"]),
    ] {
        let ask = Ask::Workloads {
            kind,
            namespace: None,
        };
        let told = explain(&cluster, ask).await;
        let named = |item: &crate::Diagnosis| item.affected.as_ref().unwrap().workloads.clone();
        let found: Vec<String> = told.items.iter().flat_map(named).collect();
        let want: Vec<String> = want.iter().map(|name| format!("shop/{name}")).collect();
        assert_eq!(found, want, "{told:?}");
    }
    assert_eq!(count(&cluster, "/apis/batch/v1/jobs"), 2);
}

#[tokio::test]
async fn all_workloads_of_a_kind_are_one_question() {
    let (empty, full) = (registry(Door::Empty).await, registry(Door::Full).await);
    let of = |name: &str, host: &str| {
        let image = format!("{host}/team/{name}:v1");
        deployment(name, &image, &json!({"replicas": 0}), &json!({}))
    };
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let cluster = Cluster::default().with(
        path,
        list(&[of("web", &empty), of("api", &empty), of("good", &full)]),
    );
    let all = || Ask::Workloads {
        kind: Workload::Deployment,
        namespace: Some("shop".to_owned()),
    };
    let told = explain(&cluster, all()).await;
    assert_eq!(told.scope, "deployments of namespace shop");
    let mut wrong: Vec<&str> = told
        .items
        .iter()
        .map(|one| one.target.name.as_str())
        .collect();
    wrong.sort_unstable();
    assert_eq!(wrong, ["api", "web"], "what is well is not listed");
    let none = Cluster::default().with(path, list(&[])).with(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop"}}),
    );
    let told = explain(&none, all()).await;
    assert_eq!(told.scope, "deployments of namespace shop (there are none)");
}
