//! Node lifecycle: a node whose lease nobody renews is not known to be ready any more.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;
use towline_sys::task::CancellationToken;

use crate::cache::Cache;

/// How long a node may be silent.
pub const GRACE: Duration = Duration::from_secs(40);
/// How often nodes are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";
/// The conditions that a kubelet keeps.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The conditions to write to a node that was silent for so long; nothing if all is well or said already.
pub fn plan(node: &Node, silent: Duration, now: Timestamp) -> Option<Vec<NodeCondition>> {
    if silent < GRACE {
        return None;
    }
    let held: Vec<&NodeCondition> = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .collect();
    let changed: Vec<NodeCondition> = CONDITIONS
        .iter()
        .filter_map(|kind| {
            let held = held.iter().find(|condition| condition.type_ == *kind);
            if held.is_some_and(|condition| condition.status == "Unknown") {
                return None;
            }
            let (reason, message) = match held {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => (
                    "NodeStatusNeverUpdated",
                    "Kubelet never posted node status.",
                ),
            };
            Some(NodeCondition {
                type_: (*kind).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: held
                    .and_then(|condition| condition.last_heartbeat_time.clone()),
                last_transition_time: Some(Time(now)),
            })
        })
        .collect();
    Some(changed).filter(|changed| !changed.is_empty())
}

/// When each node was last heard of, by our clock: nodes' clocks may differ.
#[derive(Debug, Default)]
struct Heard(BTreeMap<String, (Option<Timestamp>, Instant)>);

impl Heard {
    /// Takes in a lease's renewal.
    fn renewed(&mut self, node: &str, at: Option<Timestamp>, now: Instant) {
        let last = self.0.entry(node.to_owned()).or_insert((at, now));
        if last.0 != at {
            *last = (at, now);
        }
    }

    /// For how long a node was silent; one that is new here begins to be silent now.
    fn silent(&mut self, node: &str, now: Instant) -> Duration {
        let (_, heard) = self.0.entry(node.to_owned()).or_insert((None, now));
        now.duration_since(*heard)
    }
}

/// Runs until told to stop.
pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let nodes_api = Api::<Node>::all(client.clone());
    let mut nodes = pin!(watcher(nodes_api.clone(), watcher::Config::default()).default_backoff());
    let leases = Api::<Lease>::namespaced(client, LEASES);
    let mut leases = pin!(watcher(leases, watcher::Config::default()).default_backoff());
    let mut known: Cache<Node> = Cache::default();
    let mut heard = Heard::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(event) = nodes.next() => match event {
                Ok(event) => known.apply(event),
                Err(error) => tracing::warn!(%error, "cannot watch nodes"),
            },
            Some(event) = leases.next() => match event {
                Ok(Event::Apply(lease) | Event::InitApply(lease)) => {
                    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
                    heard.renewed(lease.metadata.name.as_deref().unwrap_or_default(), renewed, Instant::now());
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot watch leases"),
            },
            _ = look.tick() => {
                for node in known.iter() {
                    let name = node.metadata.name.as_deref().unwrap_or_default();
                    let silent = heard.silent(name, Instant::now());
                    let Some(conditions) = plan(node, silent, Timestamp::now()) else { continue };
                    tracing::warn!(node = name, seconds = silent.as_secs(), "node is silent");
                    let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
                    if let Err(error) = nodes_api.patch_status(name, &PatchParams::default(), &patch).await {
                        tracing::warn!(node = name, %error, "cannot write a node's status");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_unknown_once() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "Unknown"}]}}))
            .unwrap();
        assert_eq!(plan(&node, Duration::from_secs(39), now), None);
        let changed = plan(&node, GRACE, now).unwrap();
        let told: Vec<_> = changed
            .iter()
            .map(|condition| {
                (
                    condition.type_.as_str(),
                    condition.reason.as_deref().unwrap(),
                )
            })
            .collect();
        let never = "NodeStatusNeverUpdated";
        assert_eq!(
            told,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", never),
                ("PIDPressure", never)
            ]
        );
        let mut said = node;
        said.status.as_mut().unwrap().conditions = Some(
            [
                changed,
                vec![NodeCondition {
                    type_: "DiskPressure".to_owned(),
                    status: "Unknown".to_owned(),
                    ..NodeCondition::default()
                }],
            ]
            .concat(),
        );
        assert_eq!(plan(&said, GRACE, now), None);
    }

    #[test]
    fn silence_is_measured_by_our_clock() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut heard = Heard::default();
        let renewal: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
        heard.renewed("n", Some(renewal), start);
        heard.renewed("n", Some(renewal), later(30));
        assert_eq!(heard.silent("n", later(30)), Duration::from_secs(30));
        heard.renewed("n", None, later(35));
        assert_eq!(heard.silent("n", later(40)), Duration::from_secs(5));
        assert_eq!(heard.silent("new", later(40)), Duration::ZERO);
    }
}
