//! Container statuses as the kubelet writes them before and after there is a container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, PodStatus,
};

/// True for an init container that runs beside the others (`restartPolicy: Always`).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The waiting reason of a container of which nothing is known yet: `ContainerCreating`, or `PodInitializing` in a pod
/// with init containers (also for the init containers themselves).
pub fn default_reason(pod: &Pod) -> &'static str {
    let init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref());
    if init.is_some_and(|init| !init.is_empty()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}

/// The status of a container that waits. With `previous` (the last known status) restarts and last state are kept; a
/// container that ended since becomes the last state.
pub fn waiting(
    container: &Container,
    reason: &str,
    message: Option<&str>,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let ended = previous
        .and_then(|status| status.state.as_ref())
        .filter(|state| state.terminated.is_some())
        .cloned();
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message: message
                    .filter(|message| !message.is_empty())
                    .map(str::to_owned),
            }),
            ..ContainerState::default()
        }),
        last_state: Some(
            ended
                .or_else(|| previous.and_then(|status| status.last_state.clone()))
                .unwrap_or_default(),
        ),
        restart_count: previous.map_or(0, |status| status.restart_count),
        started: Some(false),
        ready: false,
        ..ContainerStatus::default()
    }
}

/// Container statuses of a pod of which nothing is known yet: init containers in the order of the pod, containers sorted
/// by name.
pub fn initial(pod: &Pod) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let reason = default_reason(pod);
    let Some(spec) = pod.spec.as_ref() else {
        return (Vec::new(), Vec::new());
    };
    let status = |container: &Container| waiting(container, reason, None, None);
    let init = spec.init_containers.iter().flatten().map(status).collect();
    let mut containers: Vec<_> = spec.containers.iter().map(status).collect();
    sort(&mut containers);
    (init, containers)
}

/// Sorts container statuses as the kubelet does: by name.
pub fn sort(statuses: &mut [ContainerStatus]) {
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The status with which a pod that is being deleted ends: containers that never ran are written as terminated with exit
/// code 137 (`ContainerStatusUnknown`), and the phase becomes final. Conditions stay as they were.
pub fn terminate(status: &mut PodStatus) {
    let mut failed = false;
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        let state = container.state.get_or_insert_with(ContainerState::default);
        if let Some(ended) = &state.terminated {
            failed |= ended.exit_code != 0;
            continue;
        }
        failed = true;
        container.ready = false;
        container.started = Some(false);
        *state = ContainerState {
            terminated: Some(lost()),
            ..ContainerState::default()
        };
    }
    if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        status.phase = Some(if failed { "Failed" } else { "Succeeded" }.to_owned());
    }
}

fn lost() -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_known_yet() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "b", "image": "i:2"}, {"name": "a", "image": "i:1"}]}}))
        .unwrap();
        let (init, containers) = initial(&pod);
        assert!(init.is_empty());
        assert_eq!(
            containers
                .iter()
                .map(|c| c.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(
            serde_json::to_value(&containers[0]).unwrap(),
            json!({"name": "a", "image": "i:1", "imageID": "", "ready": false, "started": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}})
        );
    }

    #[test]
    fn a_container_that_ended_becomes_the_last_state() {
        let previous: ContainerStatus =
            serde_json::from_value(json!({"name": "a", "image": "i", "imageID": "x",
            "ready": true, "restartCount": 2, "state": {"terminated": {"exitCode": 1}}}))
            .unwrap();
        let container = Container {
            name: "a".into(),
            image: Some("i:1".into()),
            ..Container::default()
        };
        let status = waiting(&container, "ErrImagePull", Some("boom"), Some(&previous));
        assert_eq!(status.restart_count, 2);
        assert_eq!(status.image_id, "");
        assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 1);
        assert_eq!(
            status.state.unwrap().waiting.unwrap().message.as_deref(),
            Some("boom")
        );
    }

    #[test]
    fn a_pod_that_never_ran_ends_failed() {
        let mut status: PodStatus =
            serde_json::from_value(json!({"phase": "Pending", "containerStatuses": [
            {"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ErrImagePull"}}}]}))
            .unwrap();
        terminate(&mut status);
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        let ended = status.container_statuses.unwrap()[0]
            .state
            .clone()
            .unwrap()
            .terminated
            .unwrap();
        assert_eq!(
            (ended.exit_code, ended.reason.as_deref()),
            (137, Some("ContainerStatusUnknown"))
        );
    }
}
