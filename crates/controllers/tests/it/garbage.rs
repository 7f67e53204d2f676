//! What goes with its owner, and what stays.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use serde_json::json;

use crate::cluster::{Cluster, eventually};
use crate::deployments::web;

impl Cluster {
    /// The numbers of Deployments, replica sets and pods.
    async fn counts(&self) -> [usize; 3] {
        let all = ListParams::default();
        [
            self.api::<Deployment>()
                .list(&all)
                .await
                .unwrap()
                .items
                .len(),
            self.api::<ReplicaSet>()
                .list(&all)
                .await
                .unwrap()
                .items
                .len(),
            self.api::<Pod>().list(&all).await.unwrap().items.len(),
        ]
    }

    async fn until_counts(&self, expected: [usize; 3]) {
        eventually("what is left", async || {
            let counts = self.counts().await;
            if counts == expected {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deployment_made_goes_with_it_or_stays() {
    let cluster = Cluster::start().await;
    let deployments = cluster.api::<Deployment>();
    for (policy, left) in [
        (PropagationPolicy::Background, [0, 0, 0]),
        (PropagationPolicy::Foreground, [0, 0, 0]),
        (PropagationPolicy::Orphan, [0, 1, 2]),
    ] {
        deployments
            .create(&PostParams::default(), &web(2))
            .await
            .unwrap();
        cluster.until_status("the rollout", json!([2, 2, 2])).await;
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        deployments.delete("web", &parameters).await.unwrap();
        cluster.until_counts(left).await;
    }
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(
        sets.items[0]
            .metadata
            .owner_references
            .clone()
            .unwrap_or_default(),
        []
    );
    cluster
        .api::<ReplicaSet>()
        .delete_collection(&DeleteParams::background(), &ListParams::default())
        .await
        .unwrap();
    cluster.until_counts([0, 0, 0]).await;
}
