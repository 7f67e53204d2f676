//! The status of a Deployment and its conditions, in Kubernetes' words.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, available, replicas};

/// The status to write, and when time alone may change it.
pub(super) fn status(
    view: &View<'_>,
    created: Option<&ReplicaSet>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = view.deployment.status.clone().unwrap_or_default();
    let ready = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    };
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let told: i32 = view.all().map(replicas).sum();
    let up: i32 = view.all().map(available).sum();
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    let mut status = DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: positive(view.all().map(actual).sum()),
        updated_replicas: positive(view.new.map_or(0, actual)),
        ready_replicas: positive(view.all().map(ready).sum()),
        available_replicas: positive(up),
        unavailable_replicas: positive(told - up),
        collision_count: before.collision_count,
        terminating_replicas: before.terminating_replicas,
        conditions: before.conditions.clone(),
    };
    let minimum = up >= view.desired - view.max_unavailable;
    let (value, reason, message) = if minimum {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(&mut status, "Available", value, reason, message, false, now);
    let again = progress(view, &before, &mut status, created, now);
    (status, again)
}

/// Whether everything that was asked for is there.
pub(super) fn complete(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    count(status.updated_replicas) == view.desired
        && count(status.replicas) == view.desired
        && count(status.available_replicas) == view.desired
        && status.observed_generation >= view.deployment.metadata.generation
}

/// The condition `Progressing`, and when time alone may change it.
fn progress(
    view: &View<'_>,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    created: Option<&ReplicaSet>,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = view
        .deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds);
    let deadline = deadline.filter(|seconds| *seconds != i32::MAX)?;
    let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
    let verdict = verdict(view, before, status, created, deadline, now);
    let subject = created
        .or(view.new)
        .and_then(|set| set.metadata.name.as_deref());
    let (value, reason, message) = verdict.words(
        subject,
        view.deployment.metadata.name.as_deref().unwrap_or_default(),
    );
    match verdict {
        Verdict::Waiting(left) => return left,
        Verdict::Complete => set(status, "Progressing", value, reason, &message, false, now),
        _ => set(status, "Progressing", value, reason, &message, true, now),
    }
    match verdict {
        Verdict::Paused | Verdict::Complete | Verdict::TimedOut => None,
        _ => Some(deadline),
    }
}

/// How a rollout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Paused,
    Resumed,
    Created,
    Found,
    Progressed,
    Complete,
    TimedOut,
    /// Nothing to say that is not said; for so long, if time may change that.
    Waiting(Option<Duration>),
}

impl Verdict {
    /// Status, reason and message, in Kubernetes' words.
    fn words(self, set: Option<&str>, deployment: &str) -> (&'static str, &'static str, String) {
        let name = set.unwrap_or_default();
        let subject = set.map_or_else(
            || format!("Deployment {deployment:?}"),
            |name| format!("ReplicaSet {name:?}"),
        );
        match self {
            Self::Paused => (
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".to_owned(),
            ),
            Self::Resumed => (
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".to_owned(),
            ),
            Self::Created => (
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set {name:?}"),
            ),
            Self::Found => (
                "True",
                "FoundNewReplicaSet",
                format!("Found new replica set {name:?}"),
            ),
            Self::Progressed => (
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
            ),
            Self::Complete => (
                "True",
                "NewReplicaSetAvailable",
                format!("{subject} has successfully progressed."),
            ),
            Self::TimedOut => (
                "False",
                "ProgressDeadlineExceeded",
                format!("{subject} has timed out progressing."),
            ),
            Self::Waiting(_) => ("", "", String::new()),
        }
    }
}

fn verdict(
    view: &View<'_>,
    before: &DeploymentStatus,
    after: &DeploymentStatus,
    created: Option<&ReplicaSet>,
    deadline: Duration,
    now: Timestamp,
) -> Verdict {
    let current = find(before, "Progressing");
    let reason = current
        .and_then(|condition| condition.reason.as_deref())
        .unwrap_or_default();
    let was_paused = reason == "DeploymentPaused";
    if view.paused {
        return if was_paused {
            Verdict::Waiting(None)
        } else {
            Verdict::Paused
        };
    }
    if was_paused {
        return Verdict::Resumed;
    }
    if created.is_some() {
        return Verdict::Created;
    }
    if complete(view, after) {
        return Verdict::Complete;
    }
    if has_progressed(before, after) {
        return Verdict::Progressed;
    }
    let Some(current) = current else {
        return Verdict::Found;
    };
    // A Deployment that once was complete, and lost pods since, is not held to the deadline.
    if reason == "NewReplicaSetAvailable" || reason == "ProgressDeadlineExceeded" {
        return Verdict::Waiting(None);
    }
    let since = current.last_update_time.as_ref().map_or(now, |time| time.0);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if waited >= deadline {
        Verdict::TimedOut
    } else {
        Verdict::Waiting(Some(deadline.saturating_sub(waited)))
    }
}

/// Whether more is updated, ready or available, or less is old, than before.
fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

/// Sets a condition. Its update time moves with the reason, or when `touch` says so; its transition time with the value.
fn set(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    touch: bool,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let now = Time(now);
    let place = conditions
        .iter()
        .position(|condition| condition.type_ == kind);
    let Some(place) = place else {
        conditions.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
        return;
    };
    let condition = &mut conditions[place];
    if touch || condition.reason.as_deref() != Some(reason) || condition.status != value {
        condition.last_update_time = Some(now.clone());
    }
    if condition.status != value {
        value.clone_into(&mut condition.status);
        condition.last_transition_time = Some(now);
    }
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.to_owned());
}
