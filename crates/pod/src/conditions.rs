//! The conditions that the kubelet writes, with their texts, and how they replace those of before.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::phase::{Phase, any_container_started};
use crate::status::is_sidecar;
use crate::text::{list, quote};

/// Types of the five conditions, in the order of the status.
pub const OWNED: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// What the conditions are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The pod; its spec, generation and present conditions count.
    pub pod: &'a Pod,
    /// Init container statuses; `None` when none was ever made.
    pub init: &'a [ContainerStatus],
    /// Container statuses; `None` when they are not known at all.
    pub containers: Option<&'a [ContainerStatus]>,
    /// The pod's phase.
    pub phase: Phase,
    /// The sandbox exists and has its network.
    pub sandbox_ready: bool,
}

/// The five conditions, without times; see [`merge`].
pub fn all(facts: &Facts<'_>) -> Vec<PodCondition> {
    let ready_to_start = if facts.sandbox_ready {
        Verdict::True
    } else {
        Verdict::False(None, None)
    };
    let containers_ready = containers_ready(facts);
    let verdicts = [
        ready_to_start,
        initialized(facts),
        ready(facts, &containers_ready),
        containers_ready,
        Verdict::True,
    ];
    let generation = facts.pod.metadata.generation;
    OWNED
        .into_iter()
        .zip(verdicts)
        .map(|(type_, verdict)| verdict.into_condition(type_, generation))
        .collect()
}

/// A condition's status with reason and message.
#[derive(Clone, Debug)]
enum Verdict {
    True,
    /// True, for a reason that is said.
    TrueFor(&'static str),
    False(Option<&'static str>, Option<String>),
}

impl Verdict {
    fn into_condition(self, type_: &str, generation: Option<i64>) -> PodCondition {
        let (status, reason, message) = match self {
            Self::True => ("True", None, None),
            Self::TrueFor(reason) => ("True", Some(reason), None),
            Self::False(reason, message) => ("False", reason, message),
        };
        PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: generation,
            ..PodCondition::default()
        }
    }
}

/// Names of containers of which nothing is known, and of those that are known and not yet right.
#[derive(Default)]
struct Names<'a> {
    unknown: Vec<&'a str>,
    wrong: Vec<&'a str>,
}

impl Names<'_> {
    fn message(&self, word: &str) -> Option<String> {
        let part = |what: &str, names: &[&str]| {
            (!names.is_empty()).then(|| {
                format!(
                    "containers with {what} status: {}",
                    list(names.iter().copied())
                )
            })
        };
        let parts: Vec<String> = [part("unknown", &self.unknown), part(word, &self.wrong)]
            .into_iter()
            .flatten()
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    let Some(containers) = facts.containers else {
        return Verdict::False(Some("UnknownContainerStatuses"), None);
    };
    let Some(spec) = facts.pod.spec.as_ref() else {
        return Verdict::True;
    };
    let mut names = Names::default();
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    let statuses = sidecars
        .map(|container| (container, find(facts.init, &container.name)))
        .chain(
            spec.containers
                .iter()
                .map(|container| (container, find(containers, &container.name))),
        );
    for (container, status) in statuses {
        match status {
            None => names.unknown.push(&container.name),
            Some(status) if !status.ready => names.wrong.push(&container.name),
            Some(_) => {}
        }
    }
    match facts.phase {
        Phase::Succeeded if names.unknown.is_empty() => Verdict::False(Some("PodCompleted"), None),
        Phase::Failed => Verdict::False(Some("PodFailed"), None),
        _ => match names.message("unready") {
            Some(message) => Verdict::False(Some("ContainersNotReady"), Some(message)),
            None => Verdict::True,
        },
    }
}

fn ready(facts: &Facts<'_>, containers_ready: &Verdict) -> Verdict {
    if !matches!(containers_ready, Verdict::True) {
        return containers_ready.clone();
    }
    let gates = facts
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    let present = facts
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let missing: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let name = quote(&gate.condition_type);
            match present
                .iter()
                .find(|condition| condition.type_ == gate.condition_type)
            {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {name} does not exist."
                )),
                Some(found) if found.status != "True" => Some(format!(
                    "the status of pod readiness gate {name} is not \"True\", but {}",
                    found.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if missing.is_empty() {
        Verdict::True
    } else {
        Verdict::False(Some("ReadinessGatesNotReady"), Some(missing.join(", ")))
    }
}

fn initialized(facts: &Facts<'_>) -> Verdict {
    let Some(spec) = facts.pod.spec.as_ref() else {
        return Verdict::True;
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let Some(containers) = facts.containers else {
        return if init.is_empty() {
            Verdict::True
        } else {
            Verdict::False(Some("UnknownContainerStatuses"), None)
        };
    };
    let mut names = Names::default();
    for container in init {
        match find(facts.init, &container.name) {
            None => names.unknown.push(&container.name),
            Some(status) => {
                let done = if is_sidecar(container) {
                    status.started == Some(true)
                } else {
                    status.ready
                };
                if !done {
                    names.wrong.push(&container.name);
                }
            }
        }
    }
    if facts.phase == Phase::Succeeded && names.unknown.is_empty() {
        return Verdict::TrueFor("PodCompleted");
    }
    if any_container_started(spec, containers) {
        return Verdict::True;
    }
    match names.message("incomplete") {
        Some(message) => Verdict::False(Some("ContainersNotInitialized"), Some(message)),
        None => Verdict::True,
    }
}

/// Puts new conditions in place of old ones: a condition whose status did not change keeps its transition time, others
/// get `now`; conditions of other owners stay, after the owned ones.
pub fn merge(new: Vec<PodCondition>, old: &[PodCondition], now: Timestamp) -> Vec<PodCondition> {
    let mut merged: Vec<PodCondition> = new
        .into_iter()
        .map(|mut condition| {
            let before = old.iter().find(|before| before.type_ == condition.type_);
            let kept = before.filter(|before| before.status == condition.status);
            condition.last_transition_time = kept
                .and_then(|before| before.last_transition_time.clone())
                .or(Some(Time(now)));
            condition.last_probe_time = before.and_then(|before| before.last_probe_time.clone());
            condition
        })
        .collect();
    let foreign: Vec<PodCondition> = old
        .iter()
        .filter(|before| !merged.iter().any(|new| new.type_ == before.type_))
        .cloned()
        .collect();
    merged.extend(foreign);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn conditions(
        spec: &Value,
        init: &Value,
        containers: &Value,
        phase: Phase,
    ) -> Vec<(String, String, String, String)> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"generation": 7}, "spec": spec})).unwrap();
        let init: Vec<ContainerStatus> = serde_json::from_value(init.clone()).unwrap();
        let containers: Option<Vec<ContainerStatus>> =
            serde_json::from_value(containers.clone()).unwrap();
        let facts = Facts {
            pod: &pod,
            init: &init,
            containers: containers.as_deref(),
            phase,
            sandbox_ready: true,
        };
        let all = all(&facts);
        assert!(
            all.iter()
                .all(|condition| condition.observed_generation == Some(7))
        );
        all.into_iter()
            .map(|c| {
                (
                    c.type_,
                    c.status,
                    c.reason.unwrap_or_default(),
                    c.message.unwrap_or_default(),
                )
            })
            .collect()
    }

    fn status(name: &str, ready: bool, state: &str) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "started": ready,
            "state": {state: {}}})
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn texts_are_the_kubelets() {
        let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let with_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let gated =
            json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "g"}]});
        let waiting = |name: &str| status(name, false, "waiting");
        let running = |name: &str| status(name, true, "running");
        for (spec, init, containers, phase, index, status, reason, message) in [
            (
                &plain,
                json!([]),
                json!([waiting("a"), waiting("b")]),
                Phase::Pending,
                2,
                "False",
                "ContainersNotReady",
                "containers with unready status: [a b]",
            ),
            (
                &plain,
                json!([]),
                json!([waiting("a")]),
                Phase::Pending,
                3,
                "False",
                "ContainersNotReady",
                "containers with unknown status: [b], containers with unready status: [a]",
            ),
            (
                &plain,
                json!([]),
                json!([running("a"), running("b")]),
                Phase::Running,
                2,
                "True",
                "",
                "",
            ),
            (
                &plain,
                json!([]),
                json!([waiting("a"), waiting("b")]),
                Phase::Succeeded,
                2,
                "False",
                "PodCompleted",
                "",
            ),
            (
                &plain,
                json!([]),
                json!([waiting("a"), waiting("b")]),
                Phase::Succeeded,
                1,
                "True",
                "PodCompleted",
                "",
            ),
            (
                &plain,
                json!([]),
                json!([waiting("a")]),
                Phase::Failed,
                3,
                "False",
                "PodFailed",
                "",
            ),
            (
                &plain,
                json!([]),
                Value::Null,
                Phase::Pending,
                2,
                "False",
                "UnknownContainerStatuses",
                "",
            ),
            (
                &plain,
                json!([]),
                Value::Null,
                Phase::Pending,
                1,
                "True",
                "",
                "",
            ),
            (
                &with_init,
                json!([]),
                Value::Null,
                Phase::Pending,
                1,
                "False",
                "UnknownContainerStatuses",
                "",
            ),
            (
                &with_init,
                json!([waiting("i"), waiting("j")]),
                json!([waiting("a")]),
                Phase::Pending,
                1,
                "False",
                "ContainersNotInitialized",
                "containers with incomplete status: [i j]",
            ),
            (
                &with_init,
                json!([waiting("i"), waiting("j")]),
                json!([running("a")]),
                Phase::Running,
                1,
                "True",
                "",
                "",
            ),
            (
                &gated,
                json!([]),
                json!([running("a")]),
                Phase::Running,
                2,
                "False",
                "ReadinessGatesNotReady",
                "corresponding condition of pod readiness gate \"g\" does not exist.",
            ),
            (
                &gated,
                json!([]),
                json!([running("a")]),
                Phase::Running,
                3,
                "True",
                "",
                "",
            ),
        ] {
            let found = conditions(spec, &init, &containers, phase);
            let expected = (
                OWNED[index].to_owned(),
                status.to_owned(),
                reason.to_owned(),
                message.to_owned(),
            );
            assert_eq!(found[index], expected);
        }
    }

    #[test]
    fn merging_keeps_times_and_foreign_conditions() {
        let condition = |type_: &str, status: &str, second: Option<i64>| PodCondition {
            type_: type_.into(),
            status: status.into(),
            last_transition_time: second.map(|s| Time(Timestamp::from_second(s).unwrap())),
            ..PodCondition::default()
        };
        let old = [
            condition("Ready", "False", Some(1)),
            condition("x", "True", Some(2)),
            condition("Initialized", "True", Some(3)),
        ];
        let new = vec![
            condition("Initialized", "True", None),
            condition("Ready", "True", None),
        ];
        let merged = merge(new, &old, Timestamp::from_second(9).unwrap());
        let found: Vec<_> = merged
            .iter()
            .map(|c| {
                (
                    c.type_.as_str(),
                    c.last_transition_time.as_ref().unwrap().0.as_second(),
                )
            })
            .collect();
        assert_eq!(found, [("Initialized", 3), ("Ready", 9), ("x", 2)]);
    }
}
