//! Workloads without pods, and all workloads of a kind.

use serde_json::{Value, json};
use towline_cause::{Cause, Confidence};

use super::bench::{Cluster, Door, list, registry};
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
