//! Deployments on a real API server, with kubectl's own words.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;
use towline_sys::testing::need_program;

use crate::cluster::{Cluster, eventually};

pub(crate) fn web(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    }))
    .unwrap()
}

impl Cluster {
    async fn set_image(&self, image: &str) {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        let deployments = self.api::<Deployment>();
        deployments
            .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn until_status(&self, what: &str, expected: Value) {
        eventually(what, async || {
            let found = self.api::<Deployment>().get("web").await.unwrap();
            let status = found.status.unwrap_or_default();
            let counts = json!([
                status.replicas,
                status.updated_replicas,
                status.available_replicas
            ]);
            let current = status.observed_generation == found.metadata.generation;
            if current && counts == expected {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    }

    async fn images(&self) -> Vec<String> {
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let living = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let mut images: Vec<String> = living
            .map(|pod| pod.spec.unwrap().containers[0].image.clone().unwrap())
            .collect();
        images.sort();
        images
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_ends_or_stops_and_is_healed() {
    let cluster = Cluster::start().await;
    cluster
        .api::<Deployment>()
        .create(&PostParams::default(), &web(3))
        .await
        .unwrap();
    cluster
        .until_status("the first rollout", json!([3, 3, 3]))
        .await;
    cluster.set_image("v2").await;
    cluster
        .until_status("the second rollout", json!([3, 3, 3]))
        .await;
    assert_eq!(cluster.images().await, ["v2", "v2", "v2"]);
    cluster.set_image("broken").await;
    cluster
        .until_status("a rollout that stops", json!([4, 1, 3]))
        .await;
    assert_eq!(cluster.images().await, ["broken", "v2", "v2", "v2"]);
    cluster.set_image("v1").await;
    cluster
        .until_status("a rollout back", json!([3, 3, 3]))
        .await;
    assert_eq!(cluster.images().await, ["v1", "v1", "v1"]);

    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let revision = "deployment.kubernetes.io/revision";
    let mut revisions: Vec<String> = sets
        .items
        .iter()
        .map(|set| set.metadata.annotations.as_ref().unwrap()[revision].clone())
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["2", "3", "4"]);
    let found = cluster.api::<Deployment>().get("web").await.unwrap();
    assert_eq!(found.metadata.annotations.unwrap()[revision], "4");

    let scale = json!({"spec": {"replicas": 1}});
    cluster
        .api::<Deployment>()
        .patch("web", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    cluster.until_status("fewer", json!([1, 1, 1])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_waits_for_a_rollout_and_undoes_one() {
    let Some(kubectl) = need_program("kubectl") else {
        return;
    };
    let cluster = Cluster::start().await;
    let run = async |arguments: &[&str]| {
        let output = Command::new(&kubectl)
            .arg("--kubeconfig")
            .arg(&cluster.kubeconfig)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    cluster
        .api::<Deployment>()
        .create(&PostParams::default(), &web(2))
        .await
        .unwrap();
    let (good, text) = run(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    assert!(
        good && text.contains("deployment \"web\" successfully rolled out"),
        "{text}"
    );
    let (good, text) = run(&["set", "image", "deployment/web", "c=broken"]).await;
    assert!(good, "{text}");
    let (good, text) = run(&["rollout", "status", "deployment/web", "--timeout=1s"]).await;
    assert!(!good, "{text}");
    let (good, text) = run(&["rollout", "undo", "deployment/web"]).await;
    assert!(good, "{text}");
    let (good, text) = run(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    assert!(good, "{text}");
    cluster
        .until_status("the undone rollout", json!([2, 2, 2]))
        .await;
    assert_eq!(cluster.images().await, ["v1", "v1"]);
    let (good, text) = run(&["rollout", "history", "deployment/web"]).await;
    assert!(good && text.contains("\n3 "), "{text}");
}
