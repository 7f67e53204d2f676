//! The columns of `kubectl get pods`, as the API server computes them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::duration::{human, since};
use crate::status::is_sidecar;

/// One row. The last four are shown with `-o wide`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodColumns {
    /// Ready containers of all: `1/2`.
    pub ready: String,
    /// STATUS.
    pub status: String,
    /// Restarts, with the age of the last where it is known: `3 (5m ago)`.
    pub restarts: String,
    /// Age of the pod.
    pub age: String,
    /// The pod's address, or `<none>`.
    pub ip: String,
    /// The node, or `<none>`.
    pub node: String,
    /// The nominated node, or `<none>`.
    pub nominated_node: String,
    /// True gates of all: `1/1`, or `<none>`.
    pub readiness_gates: String,
}

/// Restarts and the end of the last run.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += i64::from(status.restart_count);
        let ended = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .and_then(|terminated| terminated.finished_at.as_ref())
            .map(|time| time.0);
        self.last = self.last.max(ended);
    }
}

/// What the walk over the statuses collects.
struct Walk {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

/// The row of a pod at `now`.
pub fn pod_columns(pod: &Pod, now: Timestamp) -> PodColumns {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let walk = walk(pod, status);
    let restarts = match walk.restarts.last {
        Some(last) if walk.restarts.count != 0 => {
            format!(
                "{} ({} ago)",
                walk.restarts.count,
                human(now.duration_since(last))
            )
        }
        _ => walk.restarts.count.to_string(),
    };
    let none = |text: Option<&String>| {
        text.filter(|t| !t.is_empty())
            .cloned()
            .unwrap_or_else(|| "<none>".to_owned())
    };
    PodColumns {
        ready: format!("{}/{}", walk.ready, walk.total),
        status: walk.reason,
        restarts,
        age: since(
            pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            now,
        ),
        ip: none(status.pod_ip.as_ref()),
        node: none(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())),
        nominated_node: none(status.nominated_node_name.as_ref()),
        readiness_gates: gates(pod, status),
    }
}

fn gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let is_true = |name: &str| condition(status, name).is_some_and(|found| found.status == "True");
    format!(
        "{}/{}",
        gates
            .iter()
            .filter(|gate| is_true(&gate.condition_type))
            .count(),
        gates.len()
    )
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn walk(pod: &Pod, status: &PodStatus) -> Walk {
    let mut walk = Walk {
        reason: first_reason(status),
        ready: 0,
        total: total(pod),
        restarts: Restarts::default(),
    };
    let mut sidecars = Restarts::default();
    let initializing = walk_init(pod, status, &mut walk, &mut sidecars);
    if !initializing || condition(status, "Initialized").is_some_and(|c| c.status == "True") {
        walk.restarts = sidecars;
        walk_containers(status, &mut walk);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let terminal = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        if status.reason.as_deref() == Some("NodeLost") {
            "Unknown".clone_into(&mut walk.reason);
        } else if !terminal {
            "Terminating".clone_into(&mut walk.reason);
        }
    }
    walk
}

fn first_reason(status: &PodStatus) -> String {
    let gated = condition(status, "PodScheduled")
        .is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = status.reason.as_ref().filter(|reason| !reason.is_empty());
    reason
        .or(status.phase.as_ref())
        .cloned()
        .unwrap_or_default()
}

fn total(pod: &Pod) -> usize {
    pod.spec.as_ref().map_or(0, |spec| {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| is_sidecar(container))
            .count();
        spec.containers.len() + sidecars
    })
}

/// Walks the init containers; true when the pod is still initializing.
fn walk_init(pod: &Pod, status: &PodStatus, walk: &mut Walk, sidecars: &mut Restarts) -> bool {
    let specs = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = specs
            .iter()
            .any(|spec| spec.name == container.name && is_sidecar(spec));
        walk.restarts.add(container);
        if sidecar {
            sidecars.add(container);
        }
        let state = container.state.as_ref();
        let terminated = state.and_then(|state| state.terminated.as_ref());
        let waiting = state
            .and_then(|state| state.waiting.as_ref())
            .and_then(|waiting| waiting.reason.as_deref());
        if terminated.is_some_and(|terminated| terminated.exit_code == 0) {
            continue;
        }
        if sidecar && container.started == Some(true) {
            walk.ready += usize::from(container.ready);
            continue;
        }
        let reason = match (terminated, waiting) {
            (Some(terminated), _) => ended_reason(
                terminated.reason.as_deref(),
                terminated.signal,
                terminated.exit_code,
            ),
            (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => {
                reason.to_owned()
            }
            _ => format!("{index}/{}", specs.len()),
        };
        walk.reason = format!("Init:{reason}");
        return true;
    }
    false
}

fn ended_reason(reason: Option<&str>, signal: Option<i32>, exit_code: i32) -> String {
    match (
        reason.filter(|reason| !reason.is_empty()),
        signal.filter(|signal| *signal != 0),
    ) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) => format!("Signal:{signal}"),
        (None, None) => format!("ExitCode:{exit_code}"),
    }
}

/// Walks the containers from last to first, so that the first one wins.
fn walk_containers(status: &PodStatus, walk: &mut Walk) {
    let mut running = false;
    let mut error = None;
    for container in status.container_statuses.iter().flatten().rev() {
        walk.restarts.add(container);
        let Some(state) = &container.state else {
            continue;
        };
        let waiting = state
            .waiting
            .as_ref()
            .and_then(|waiting| waiting.reason.as_deref())
            .unwrap_or_default();
        if !waiting.is_empty() {
            waiting.clone_into(&mut walk.reason);
        } else if let Some(ended) = &state.terminated {
            walk.reason = ended_reason(ended.reason.as_deref(), ended.signal, ended.exit_code);
            if ended.exit_code != 0 {
                error = Some(walk.reason.clone());
            }
        } else if container.ready && state.running.is_some() {
            running = true;
            walk.ready += 1;
        }
    }
    if walk.reason == "Completed" {
        let ready = condition(status, "Ready").is_some_and(|condition| condition.status == "True");
        match (running, ready, error) {
            (true, true, _) => "Running".clone_into(&mut walk.reason),
            (_, _, Some(error)) => walk.reason = error,
            (true, false, None) => "NotReady".clone_into(&mut walk.reason),
            (false, _, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn row(spec: &Value, status: &Value, deleting: bool) -> PodColumns {
        let mut metadata = json!({"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"});
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        }
        let pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
                .unwrap();
        pod_columns(&pod, "2026-01-01T00:05:00Z".parse().unwrap())
    }

    fn container(name: &str, state: &Value, ready: bool) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": state})
    }

    #[test]
    fn status_follows_the_walk() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        let ended =
            |reason: &str, code: i32| json!({"terminated": {"exitCode": code, "reason": reason}});
        let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let two = |a: &Value, b: &Value| {
            json!([
                container("a", a, *a == running),
                container("b", b, *b == running)
            ])
        };
        let ready = json!([{"type": "Ready", "status": "True"}]);
        for (statuses, conditions, phase, expected) in [
            (json!([]), json!([]), "Pending", ("0/2", "Pending")),
            (
                two(&waiting("ErrImagePull"), &running),
                json!([]),
                "Pending",
                ("1/2", "ErrImagePull"),
            ),
            (
                two(&running, &waiting("ImagePullBackOff")),
                json!([]),
                "Pending",
                ("1/2", "ImagePullBackOff"),
            ),
            (
                two(&waiting("ErrImagePull"), &waiting("X")),
                json!([]),
                "Pending",
                ("0/2", "ErrImagePull"),
            ),
            (
                two(&running, &running),
                ready.clone(),
                "Running",
                ("2/2", "Running"),
            ),
            (
                two(&ended("Completed", 0), &running),
                ready,
                "Running",
                ("1/2", "Running"),
            ),
            (
                two(&ended("Completed", 0), &running),
                json!([]),
                "Running",
                ("1/2", "NotReady"),
            ),
            (
                two(&ended("Completed", 0), &ended("Error", 1)),
                json!([]),
                "Failed",
                ("0/2", "Error"),
            ),
            (
                two(&ended("", 3), &running),
                json!([]),
                "Running",
                ("1/2", "ExitCode:3"),
            ),
        ] {
            let status =
                json!({"phase": phase, "containerStatuses": statuses, "conditions": conditions});
            let row = row(&plain, &status, false);
            assert_eq!(
                (row.ready.as_str(), row.status.as_str()),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [
            {"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}]});
        let done = json!({"terminated": {"exitCode": 0}});
        let init = |statuses: Value| {
            json!({"phase": "Pending", "initContainerStatuses": statuses,
            "containerStatuses": [container("a", &json!({"waiting": {"reason": "PodInitializing"}}), false)]})
        };
        let mut sidecar = container("s", &json!({"running": {}}), true);
        sidecar["started"] = json!(true);
        for (statuses, ready, status) in [
            (
                json!([container(
                    "i",
                    &json!({"waiting": {"reason": "PodInitializing"}}),
                    false
                )]),
                "0/2",
                "Init:0/3",
            ),
            (
                json!([container(
                    "i",
                    &json!({"waiting": {"reason": "ErrImagePull"}}),
                    false
                )]),
                "0/2",
                "Init:ErrImagePull",
            ),
            (
                json!([container(
                    "i",
                    &json!({"terminated": {"exitCode": 2}}),
                    false
                )]),
                "0/2",
                "Init:ExitCode:2",
            ),
            (
                json!([container(
                    "i",
                    &json!({"terminated": {"exitCode": 2, "signal": 9}}),
                    false
                )]),
                "0/2",
                "Init:Signal:9",
            ),
            (
                json!([
                    container("i", &done, true),
                    sidecar,
                    container("j", &json!({"running": {}}), false)
                ]),
                "1/2",
                "Init:2/3",
            ),
        ] {
            let row = row(&spec, &init(statuses.clone()), false);
            assert_eq!(
                (row.ready.as_str(), row.status.as_str()),
                (ready, status),
                "{statuses}"
            );
        }
    }

    #[test]
    fn the_rest_of_the_row() {
        let mut container = container("a", &json!({"running": {}}), true);
        container["restartCount"] = json!(3);
        container["lastState"] =
            json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:02:00Z"}});
        let spec = json!({"containers": [{"name": "a"}], "nodeName": "n1",
            "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]});
        let status = json!({"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [container],
            "conditions": [{"type": "x", "status": "True"}]});
        let row = row(&spec, &status, false);
        assert_eq!(
            (
                row.restarts.as_str(),
                row.age.as_str(),
                row.ip.as_str(),
                row.node.as_str()
            ),
            ("3 (3m ago)", "5m", "10.0.0.1", "n1")
        );
        assert_eq!(
            (row.nominated_node.as_str(), row.readiness_gates.as_str()),
            ("<none>", "1/2")
        );
        assert_eq!(
            super::tests::row(&spec, &status, true).status,
            "Terminating"
        );
        let lost = json!({"phase": "Running", "reason": "NodeLost"});
        assert_eq!(super::tests::row(&spec, &lost, true).status, "Unknown");
        let evicted = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(super::tests::row(&spec, &evicted, true).status, "Evicted");
        let gated = json!({"phase": "Pending", "conditions":
            [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        assert_eq!(
            super::tests::row(&spec, &gated, false).status,
            "SchedulingGated"
        );
    }
}
