//! The lease by which others see that the node is alive.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;

const NAMESPACE: &str = "kube-node-lease";
const SECONDS: i32 = 40;
const PERIOD: Duration = Duration::from_secs(10);

/// Renews the node's lease every 10 s until `stop`.
pub(crate) async fn renew(
    client: kube::Client,
    node: String,
    clock: Clock,
    stop: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let renewed = once(&client, &api, &node, clock).await;
        if let Err(error) = &renewed
            && !failing
        {
            warn!(%error, "the node's lease cannot be renewed");
        }
        failing = renewed.is_err();
    }
}

async fn once(
    client: &kube::Client,
    api: &Api<Lease>,
    node: &str,
    clock: Clock,
) -> Result<(), kube::Error> {
    let now = MicroTime(clock.now());
    let renewal = serde_json::json!({ "spec": { "renewTime": now, "holderIdentity": node, "leaseDurationSeconds": SECONDS } });
    let params = PatchParams::default();
    match api.patch(node, &params, &Patch::Merge(renewal)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let owner = nodes
        .get_opt(node)
        .await?
        .and_then(|found| found.metadata.uid);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: node.to_owned(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(SECONDS),
            renew_time: Some(now.clone()),
            acquire_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
