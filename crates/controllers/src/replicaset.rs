//! Replica sets: as many pods as wanted.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::owner;

/// The most pods that are made or deleted in one go.
const BURST: usize = 500;

/// What a replica set needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to take over: they match and nobody controls them.
    pub adopt: Vec<String>,
    /// Pods to let go: they are controlled and no longer match.
    pub release: Vec<String>,
    /// How many pods to make.
    pub create: usize,
    /// Pods to delete.
    pub delete: Vec<String>,
    /// The status to write.
    pub status: ReplicaSetStatus,
    /// When a pod that is ready now will count as available.
    pub again: Option<Duration>,
}

/// Decides for a replica set; `pods` are those of its namespace.
pub fn plan(set: &ReplicaSet, pods: &[&Pod], now: Timestamp) -> Plan {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let Some(spec) = &set.spec else {
        return Plan::default();
    };
    let going = set.metadata.deletion_timestamp.is_some();
    let mut plan = Plan::default();
    let mut ours: Vec<&Pod> = Vec::new();
    for pod in pods.iter().copied().filter(|pod| is_active(pod)) {
        let matches = owner::selects(&spec.selector, pod.metadata.labels.as_ref());
        let name = pod.metadata.name.clone().unwrap_or_default();
        match (owner::controller(&pod.metadata), matches) {
            (Some(owner), true) if owner.uid == uid => ours.push(pod),
            (Some(owner), false) if owner.uid == uid => plan.release.push(name),
            (None, true) if !going => {
                plan.adopt.push(name);
                ours.push(pod);
            }
            _ => {}
        }
    }
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !going && ours.len() < wanted {
        plan.create = (wanted - ours.len()).min(BURST);
    } else if !going && ours.len() > wanted {
        let mut ranked = ours.clone();
        ranked.sort_by_key(|pod| keep_rank(pod));
        let surplus = (ours.len() - wanted).min(BURST);
        plan.delete = ranked
            .iter()
            .take(surplus)
            .filter_map(|pod| pod.metadata.name.clone())
            .collect();
    }
    let waiting =
        Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let labelled = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
        })
    };
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(ours.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    plan.again = ours
        .iter()
        .filter_map(|pod| until_available(pod, waiting, now))
        .filter(|left| !left.is_zero())
        .min();
    let terminating = pods
        .iter()
        .filter(|pod| is_terminating(pod) && owner::is_controlled_by(&pod.metadata, uid))
        .count();
    plan.status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: Some(count(&labelled)).filter(|count| *count > 0),
        ready_replicas: Some(count(&|pod| ready_since(pod).is_some())).filter(|count| *count > 0),
        available_replicas: Some(count(&|pod| {
            until_available(pod, waiting, now) == Some(Duration::ZERO)
        }))
        .filter(|count| *count > 0),
        observed_generation: set.metadata.generation,
        conditions: set
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone()),
        terminating_replicas: i32::try_from(terminating).ok(),
    };
    plan
}

/// A pod of a replica set, to be created.
pub fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
    let PodTemplateSpec { metadata, spec } = template.unwrap_or_default();
    let metadata = metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: set.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner::reference(
                "apps/v1",
                "ReplicaSet",
                &set.metadata,
            )]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod counts: neither over nor on its way out.
fn is_active(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn is_terminating(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// Since when a pod is ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    )
}

/// How long until a ready pod counts as available; zero when it does.
fn until_available(pod: &Pod, waiting: Duration, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(waiting.saturating_sub(ready_for))
}

/// What is deleted first sorts first: without a node, pending, not ready, restarted often, young.
fn keep_rank(pod: &Pod) -> (bool, u8, bool, Reverse<i32>, Reverse<Option<Timestamp>>) {
    let assigned = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let restarts = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let restarts = restarts
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        assigned,
        phase,
        ready_since(pod).is_some(),
        Reverse(restarts),
        Reverse(created),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "default", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        }))
        .unwrap()
    }

    fn pod(name: &str, change: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true}]},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        merge(&mut pod, change);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(base: &mut Value, change: Value) {
        match (base, change) {
            (Value::Object(base), Value::Object(change)) => {
                for (key, value) in change {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, change) => *base = change,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn pods_are_made_counted_and_deleted() {
        let now = at("2026-01-01T00:00:10Z");
        let ready = pod("a", json!({}));
        let over = pod("b", json!({"status": {"phase": "Failed"}}));
        let going = pod(
            "c",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        let plan = plan(&set(3, 0), &[&ready, &over, &going], now);
        assert_eq!((plan.create, plan.delete.len()), (2, 0));
        assert_eq!(plan.status.replicas, 1);
        assert_eq!(
            (plan.status.ready_replicas, plan.status.available_replicas),
            (Some(1), Some(1))
        );
        assert_eq!(
            (
                plan.status.observed_generation,
                plan.status.terminating_replicas
            ),
            (Some(3), Some(1))
        );
    }

    #[test]
    fn a_ready_pod_is_available_after_a_while() {
        let ready = pod("a", json!({}));
        let early = plan(&set(1, 30), &[&ready], at("2026-01-01T00:00:10Z"));
        assert_eq!(
            (early.status.available_replicas, early.again),
            (None, Some(Duration::from_secs(20)))
        );
        let late = plan(&set(1, 30), &[&ready], at("2026-01-01T00:00:30Z"));
        assert_eq!(
            (late.status.available_replicas, late.again),
            (Some(1), None)
        );
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let now = at("2026-01-01T00:00:10Z");
        let ready = pod("ready", json!({}));
        let broken = pod("broken", json!({"status": {"conditions": []}}));
        let pending = pod(
            "pending",
            json!({"status": {"phase": "Pending", "conditions": []}}),
        );
        let unassigned = pod(
            "unassigned",
            json!({"spec": {"nodeName": null}, "status": {"phase": "Pending", "conditions": []}}),
        );
        let pods = [&ready, &broken, &pending, &unassigned];
        for (replicas, expected) in [
            (3, vec!["unassigned"]),
            (2, vec!["unassigned", "pending"]),
            (1, vec!["unassigned", "pending", "broken"]),
        ] {
            assert_eq!(plan(&set(replicas, 0), &pods, now).delete, expected);
        }
    }

    #[test]
    fn pods_are_adopted_and_released() {
        let now = at("2026-01-01T00:00:10Z");
        let orphan = pod("orphan", json!({"metadata": {"ownerReferences": null}}));
        let relabelled = pod(
            "relabelled",
            json!({"metadata": {"labels": {"app": "other"}}}),
        );
        let other = pod(
            "other",
            json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "x", "controller": true}]}}),
        );
        let plan = plan(&set(1, 0), &[&orphan, &relabelled, &other], now);
        assert_eq!(
            (plan.adopt, plan.release, plan.create),
            (vec!["orphan".to_owned()], vec!["relabelled".to_owned()], 0)
        );
        let mut gone = set(5, 0);
        gone.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert_eq!(super::plan(&gone, &[&orphan], now).create, 0);
    }
}
