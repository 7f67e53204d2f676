//! Container statuses.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use towline_pod::status::{default_reason, sort, waiting};

use super::Inputs;
use crate::sync::actions::should_start;
use crate::view::{self, Instance, Role, State};

/// The three lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) init: Vec<ContainerStatus>,
    pub(super) main: Vec<ContainerStatus>,
    pub(super) ephemeral: Vec<ContainerStatus>,
}

/// Every container's status.
pub(super) fn statuses(inputs: &Inputs<'_>) -> Lists {
    let mut lists = Lists::default();
    for (role, container) in view::containers(inputs.pod) {
        let previous = previous(inputs.previous, role, &container.name);
        let status = status(inputs, role, &container, previous);
        match role {
            Role::Init | Role::Sidecar => lists.init.push(status),
            Role::Main => lists.main.push(status),
            Role::Ephemeral => lists.ephemeral.push(status),
        }
    }
    sort(&mut lists.main);
    sort(&mut lists.ephemeral);
    lists
}

fn previous<'a>(status: &'a PodStatus, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

fn status(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut instances = inputs.view.all(&container.name);
    let latest = instances.next();
    let older = instances.next();
    let mut status = match latest {
        Some(latest) => of_instance(inputs, role, container, latest, older),
        None => match previous.filter(|status| ended(status) || inputs.terminal) {
            Some(previous) => previous.clone(),
            None => waiting(container, default_reason(inputs.pod), None, None),
        },
    };
    let deleting = inputs.pod.metadata.deletion_timestamp.is_some();
    if !deleting
        && !inputs.terminal
        && may_start(inputs, role, container, latest)
        && let Some(trouble) = (inputs.trouble)(&container.name)
    {
        inject(&mut status, trouble.reason, trouble.message);
    }
    status
}

fn may_start(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    latest: Option<&Instance>,
) -> bool {
    match (role, latest) {
        (Role::Init, Some(latest)) if latest.state == State::Exited => {
            let spec = inputs.pod.spec.as_ref();
            let never = spec.and_then(|s| s.restart_policy.as_deref()) == Some("Never");
            latest.exit_code != 0 && !never
        }
        _ => should_start(inputs.pod, container, latest),
    }
}

fn ended(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.terminated.is_some())
}

/// The container waits for the reason; how it ended before becomes the last state.
fn inject(status: &mut ContainerStatus, reason: String, message: String) {
    let state = status.state.take().unwrap_or_default();
    if state.terminated.is_some() {
        status.last_state = Some(state);
    }
    status.state = Some(ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason),
            message: (!message.is_empty()).then_some(message),
        }),
        ..ContainerState::default()
    });
}

fn of_instance(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    latest: &Instance,
    older: Option<&Instance>,
) -> ContainerStatus {
    let running = latest.state == State::Running;
    let (health, ready) = if running {
        (inputs.health)(&container.name)
    } else {
        Default::default()
    };
    let state = match latest.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: latest.started.map(Time),
            }),
            ..ContainerState::default()
        },
        State::Exited => terminated(inputs, latest),
        State::Created | State::Unknown => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(default_reason(inputs.pod).to_owned()),
                message: None,
            }),
            ..ContainerState::default()
        },
    };
    let last_state = older
        .filter(|older| older.state == State::Exited)
        .map(|older| terminated(inputs, older));
    let started = running && (health.started || role == Role::Init);
    let ready = match role {
        Role::Init => latest.state == State::Exited && latest.exit_code == 0,
        Role::Sidecar | Role::Main => started && ready,
        Role::Ephemeral => false,
    };
    ContainerStatus {
        name: container.name.clone(),
        image: latest.image.clone(),
        image_id: latest.image_ref.clone(),
        container_id: Some(format!("{}://{}", inputs.runtime, latest.id)),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        restart_count: i32::try_from(latest.restarts).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        ..ContainerStatus::default()
    }
}

fn terminated(inputs: &Inputs<'_>, instance: &Instance) -> ContainerState {
    let reason = if instance.reason.is_empty() {
        if instance.exit_code == 0 {
            "Completed"
        } else {
            "Error"
        }
    } else {
        &instance.reason
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: instance.exit_code,
            reason: Some(reason.to_owned()),
            message: (!instance.message.is_empty()).then(|| instance.message.clone()),
            started_at: instance.started.map(Time),
            finished_at: instance.finished.map(Time),
            container_id: Some(format!("{}://{}", inputs.runtime, instance.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}
