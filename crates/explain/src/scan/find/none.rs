//! Why a workload has no pods: it wants none, it is over, or it is not let make any.

use k8s_openapi::api::core::v1::Event;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use towline_cause::{Cause, Step};

use super::Workload;
use crate::Evidence;
use crate::decide::NodeView;
use crate::world::reason;

/// What an event says that tells of a pod that could not be made.
pub(super) const REASON: &str = "FailedCreate";
/// The most events of a kind of object that are looked through.
const MOST_EVENTS: u32 = 500;
/// The most characters of a refusal that are told.
const MOST_WORDS: usize = 1000;

/// Why there are no pods.
#[derive(Debug, Clone)]
pub(crate) enum NoPods {
    /// None is to be there: the sentence says why.
    Unwanted(String),
    /// What makes the pods was refused: the API server's words.
    Refused(String),
    /// The object does not say.
    Unknown,
    /// Nor can the events be read that may say it: why.
    Unread(String),
}

impl NoPods {
    /// In words for a person.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unwanted(why) => format!("no pod is there: {why}"),
            Self::Refused(said) => format!("no pod can be made: {said}"),
            Self::Unknown => "no pod is there, and nothing says why".to_owned(),
            Self::Unread(why) => {
                format!("no pod is there, and the events that may say why cannot be read: {why}")
            }
        }
    }

    pub(crate) fn evidence(&self) -> Evidence {
        Evidence {
            fact: self.words(),
            seen_from: "the cluster's API".to_owned(),
            seen_by: match self {
                Self::Refused(_) => "the workload's controller",
                Self::Unwanted(_) | Self::Unknown | Self::Unread(_) => "towline",
            }
            .to_owned(),
        }
    }

    /// The refusal, where it is one of the image: a quota and a limit of resources are for other reasons than that.
    pub(crate) fn refusal(&self) -> Option<NodeView> {
        let Self::Refused(said) = self else {
            return None;
        };
        let reading = towline_dialect::read(said);
        (reading.cause == Cause::AdmissionDenied).then(|| NodeView {
            cause: reading.cause,
            step: Some(Step::Admission),
            confidence: reading.confidence,
            alternatives: reading.alternatives,
            typed: false,
            text: said.clone(),
        })
    }
}

/// Asks the object, and then the events about it and what it made.
pub(super) async fn why(
    client: &Client,
    kind: Workload,
    object: &DynamicObject,
    namespace: &str,
) -> NoPods {
    if let Some(why) = unwanted(kind, object) {
        return NoPods::Unwanted(why);
    }
    let said = match condition(&object.data) {
        Some(said) => Ok(Some(said)),
        None => from_events(client, kind, &object.name_any(), namespace).await,
    };
    match said {
        Ok(Some(said)) => NoPods::Refused(said.chars().take(MOST_WORDS).collect()),
        Ok(None) => NoPods::Unknown,
        Err(error) => NoPods::Unread(reason(&error)),
    }
}

/// Why it is to have no pods, by its own spec and status.
fn unwanted(kind: Workload, object: &DynamicObject) -> Option<String> {
    let (spec, status) = (&object.data["spec"], &object.data["status"]);
    let word = kind.word();
    let suspended = spec["suspend"] == Value::Bool(true);
    match kind {
        Workload::Job | Workload::CronJob if suspended => Some(format!("the {word} is suspended")),
        Workload::Job => {
            is_over(object).map(|how| format!("the {word} is over ({how}) and its pods are gone"))
        }
        Workload::CronJob => Some(match spec["schedule"].as_str() {
            Some(schedule) => {
                format!(
                    "the {word} has made no job that is still there (its schedule: {schedule:?})"
                )
            }
            None => format!("the {word} has made no job that is still there"),
        }),
        Workload::DaemonSet => (status["desiredNumberScheduled"] == 0)
            .then(|| format!("no node fits what the {word} asks for")),
        _ => (spec["replicas"] == 0).then(|| format!("the {word} is scaled to 0")),
    }
}

/// How a job ended; `None` while it goes on.
pub(super) fn is_over(job: &DynamicObject) -> Option<&'static str> {
    let conditions = job.data["status"]["conditions"].as_array();
    let is_true = |how: &&str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == **how && one["status"] == "True")
    };
    ["Complete", "Failed"].into_iter().find(is_true)
}

/// What the status keeps of a pod that could not be made.
fn condition(data: &Value) -> Option<String> {
    let conditions = data["status"]["conditions"].as_array()?;
    let failure = conditions
        .iter()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")?;
    Some(failure["message"].as_str()?.to_owned())
}

/// The newest event that tells of a pod that could not be made.
async fn from_events(
    client: &Client,
    kind: Workload,
    name: &str,
    namespace: &str,
) -> Result<Option<String>, kube::Error> {
    // A deployment's pods are made by its replica sets, which bear its name and a hash.
    let (of, exact) = match kind {
        Workload::Deployment => (Workload::ReplicaSet, false),
        other => (other, true),
    };
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut fields = format!("reason={REASON},involvedObject.kind={}", of.kind());
    if exact {
        fields = format!("{fields},involvedObject.name={name}");
    }
    let params = ListParams::default().fields(&fields).limit(MOST_EVENTS);
    let events = events.list(&params).await?.items;
    let own = |event: &&Event| {
        let object = event.involved_object.name.as_deref().unwrap_or_default();
        let made = |rest: &str| rest.starts_with('-') && !rest[1..].contains('-');
        let of_it = if exact {
            object == name
        } else {
            object.strip_prefix(name).is_some_and(made)
        };
        event.reason.as_deref() == Some(REASON) && of_it
    };
    let time = |event: &&Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    let newest = events.iter().filter(own).max_by_key(time);
    Ok(newest.and_then(|event| event.message.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is written in place is not needed any more"
    )]
    fn object(data: Value) -> DynamicObject {
        let mut whole = json!({"apiVersion": "apps/v1", "kind": "X", "metadata": {"name": "web"}});
        whole["spec"] = data["spec"].clone();
        whole["status"] = data["status"].clone();
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_workload_says_why_it_has_no_pods() {
        for (kind, data, want) in [
            (
                Workload::Deployment,
                json!({"spec": {"replicas": 0}}),
                Some("the deployment is scaled to 0"),
            ),
            (Workload::Deployment, json!({"spec": {"replicas": 2}}), None),
            (
                Workload::Job,
                json!({"spec": {"suspend": true}}),
                Some("the job is suspended"),
            ),
            (
                Workload::Job,
                json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}),
                Some("the job is over (Failed) and its pods are gone"),
            ),
            (Workload::Job, json!({}), None),
            (
                Workload::CronJob,
                json!({"spec": {"schedule": "0 3 * * *"}}),
                Some(
                    "the cronjob has made no job that is still there (its schedule: \"0 3 * * *\")",
                ),
            ),
            (
                Workload::DaemonSet,
                json!({"status": {"desiredNumberScheduled": 0}}),
                Some("no node fits what the daemonset asks for"),
            ),
        ] {
            assert_eq!(unwanted(kind, &object(data)).as_deref(), want);
        }
    }

    #[test]
    fn a_refusal_of_the_image_is_its_cause_and_a_quota_is_not() {
        let of = |said: &str| {
            NoPods::Refused(said.to_owned())
                .refusal()
                .map(|one| one.cause)
        };
        let webhook = r#"Error creating: admission webhook "validate.kyverno.svc-fail" denied the request: image registry docker.io is not allowed"#;
        assert_eq!(of(webhook), Some(Cause::AdmissionDenied));
        let quota = r#"Error creating: pods "web-7d9f-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4"#;
        assert_eq!(of(quota), None);
    }
}
