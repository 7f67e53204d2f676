//! The phase of a pod, from its spec and its container statuses.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodSpec};

use crate::status::is_sidecar;

/// The phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not all containers were started yet.
    Pending,
    /// At least one runs, or will be started again.
    Running,
    /// All ended with exit code 0 and none is started again.
    Succeeded,
    /// All ended, at least one with another exit code, and none is started again.
    Failed,
}

impl Phase {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// True for the two that are final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Unknown,
    Waiting,
    Running,
    Stopped { ok: bool },
}

fn stand(statuses: &[ContainerStatus], name: &str) -> Stand {
    let Some(status) = statuses.iter().find(|status| status.name == name) else {
        return Stand::Unknown;
    };
    let ended = |state: Option<&ContainerState>| {
        state
            .and_then(|s| s.terminated.as_ref())
            .map(|t| t.exit_code == 0)
    };
    let Some(state) = &status.state else {
        return Stand::Unknown;
    };
    if state.running.is_some() {
        Stand::Running
    } else if let Some(ok) = ended(Some(state)) {
        Stand::Stopped { ok }
    } else if state.waiting.is_some() {
        // Waiting for a restart counts as stopped, but not as succeeded.
        match ended(status.last_state.as_ref()) {
            Some(_) => Stand::Stopped { ok: false },
            None => Stand::Waiting,
        }
    } else {
        Stand::Unknown
    }
}

/// True when a container other than an init container was ever started.
pub fn any_container_started(spec: &PodSpec, containers: &[ContainerStatus]) -> bool {
    spec.containers.iter().any(|container| {
        containers
            .iter()
            .filter(|status| status.name == container.name)
            .any(|status| {
                let ran =
                    |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
                status.started == Some(true)
                    || status.state.as_ref().is_some_and(ran)
                    || status
                        .last_state
                        .as_ref()
                        .is_some_and(|state| state.terminated.is_some())
            })
    })
}

/// The phase. `terminal` says that nothing of this pod is started again, whatever its restart policy (it is being deleted
/// and ended, or was evicted).
pub fn pod_phase(
    spec: &PodSpec,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    terminal: bool,
) -> Phase {
    let never = spec.restart_policy.as_deref() == Some("Never");
    let mut pending_init = 0;
    let mut failed_init = false;
    let mut counts = Counts::default();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| !is_sidecar(container))
    {
        match last_end(init, &container.name) {
            Some(ok) => failed_init |= !ok,
            None => pending_init += 1,
        }
    }
    let mut pending_sidecars = 0;
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container))
    {
        let status = init.iter().find(|status| status.name == container.name);
        match stand(init, &container.name) {
            Stand::Running => {
                pending_sidecars +=
                    usize::from(status.and_then(|status| status.started) != Some(true));
                counts.running += 1;
            }
            Stand::Waiting => {
                pending_sidecars += 1;
                counts.waiting += 1;
            }
            Stand::Unknown => {
                pending_sidecars += usize::from(status.is_some());
                counts.unknown += 1;
            }
            Stand::Stopped { .. } => {}
        }
    }
    for container in &spec.containers {
        counts.add(stand(containers, &container.name));
    }
    if failed_init && never {
        return Phase::Failed;
    }
    let initialized = any_container_started(spec, containers);
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || counts.waiting > 0 {
        return Phase::Pending;
    }
    counts.phase(spec.restart_policy.as_deref().unwrap_or("Always"), terminal)
}

/// How a regular init container ended last; `None` while it has not.
fn last_end(statuses: &[ContainerStatus], name: &str) -> Option<bool> {
    let status = statuses.iter().find(|status| status.name == name)?;
    let ended = |state: &Option<ContainerState>| {
        state
            .as_ref()?
            .terminated
            .as_ref()
            .map(|t| t.exit_code == 0)
    };
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return None;
    }
    ended(&status.state).or_else(|| {
        state
            .waiting
            .as_ref()
            .and_then(|_| ended(&status.last_state))
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    unknown: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

impl Counts {
    fn add(&mut self, stand: Stand) {
        match stand {
            Stand::Unknown => self.unknown += 1,
            Stand::Waiting => self.waiting += 1,
            Stand::Running => self.running += 1,
            Stand::Stopped { ok } => {
                self.stopped += 1;
                self.succeeded += usize::from(ok);
            }
        }
    }

    fn phase(self, restart_policy: &str, terminal: bool) -> Phase {
        if self.running > 0 && self.unknown == 0 {
            return Phase::Running;
        }
        if self.running > 0 || self.stopped == 0 || self.unknown > 0 {
            return Phase::Pending;
        }
        let all_ok = self.stopped == self.succeeded;
        let restarts =
            !terminal && (restart_policy == "Always" || (restart_policy != "Never" && !all_ok));
        match (restarts, all_ok) {
            (true, _) => Phase::Running,
            (false, true) => Phase::Succeeded,
            (false, false) => Phase::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(name: &str, state: &str) -> Value {
        let mut value =
            json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        let (state, last) = match state {
            "running" => (json!({"running": {}}), json!({})),
            "waiting" => (json!({"waiting": {"reason": "ErrImagePull"}}), json!({})),
            "rewaiting" => (
                json!({"waiting": {}}),
                json!({"terminated": {"exitCode": 1}}),
            ),
            "ok" => (json!({"terminated": {"exitCode": 0}}), json!({})),
            "bad" => (json!({"terminated": {"exitCode": 1}}), json!({})),
            other => panic!("{other}"),
        };
        value["state"] = state;
        value["lastState"] = last;
        value
    }

    fn phase(
        policy: &str,
        init: &[(&str, bool)],
        init_states: &[&str],
        states: &[&str],
        terminal: bool,
    ) -> &'static str {
        let init_specs: Vec<Value> = init
            .iter()
            .map(|(name, sidecar)| {
                if *sidecar {
                    json!({"name": name, "restartPolicy": "Always"})
                } else {
                    json!({"name": name})
                }
            })
            .collect();
        let names: Vec<String> = (0..states.len().max(1)).map(|i| format!("c{i}")).collect();
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let spec: PodSpec =
            serde_json::from_value(json!({"restartPolicy": policy, "initContainers": init_specs, "containers": containers})).unwrap();
        let read = |names: Vec<&str>, states: &[&str]| -> Vec<ContainerStatus> {
            names
                .iter()
                .zip(states)
                .map(|(n, s)| serde_json::from_value(status(n, s)).unwrap())
                .collect()
        };
        let init_statuses = read(init.iter().map(|(name, _)| *name).collect(), init_states);
        let statuses = read(names.iter().map(String::as_str).collect(), states);
        pod_phase(&spec, &init_statuses, &statuses, terminal).as_str()
    }

    #[test]
    fn phases_without_init_containers() {
        for (policy, states, terminal, expected) in [
            ("Always", &[][..], false, "Pending"),
            ("Always", &["waiting"], false, "Pending"),
            ("Always", &["running", "waiting"], false, "Pending"),
            ("Always", &["running", "running"], false, "Running"),
            ("Always", &["running", "rewaiting"], false, "Running"),
            ("Always", &["rewaiting"], false, "Running"),
            ("Never", &["rewaiting"], false, "Failed"),
            ("Always", &["ok"], false, "Running"),
            ("OnFailure", &["ok", "ok"], false, "Succeeded"),
            ("OnFailure", &["ok", "bad"], false, "Running"),
            ("Never", &["ok", "bad"], false, "Failed"),
            ("Never", &["ok", "ok"], false, "Succeeded"),
            ("Never", &["waiting"], false, "Pending"),
            ("Always", &["bad"], true, "Failed"),
            ("Always", &["ok"], true, "Succeeded"),
        ] {
            assert_eq!(
                phase(policy, &[], &[], states, terminal),
                expected,
                "{policy} {states:?}"
            );
        }
    }

    #[test]
    fn phases_with_init_containers() {
        let one = &[("i", false)][..];
        let side = &[("s", true)][..];
        for (policy, init, init_states, states, expected) in [
            ("Always", one, &["waiting"][..], &["waiting"][..], "Pending"),
            ("Always", one, &["running"], &["waiting"], "Pending"),
            ("Never", one, &["bad"], &["waiting"], "Failed"),
            ("Always", one, &["bad"], &["waiting"], "Pending"),
            ("Always", one, &["ok"], &["running"], "Running"),
            ("Always", side, &["waiting"], &["waiting"], "Pending"),
            ("Always", side, &["running"], &["running"], "Running"),
            ("Always", side, &["rewaiting"], &["running"], "Running"),
        ] {
            assert_eq!(
                phase(policy, init, init_states, states, false),
                expected,
                "{init_states:?} {states:?}"
            );
        }
    }
}
