//! A pod's status: from what the runtime holds, in Kubernetes' form, and its way to the API.

mod containers;
pub(crate) mod manager;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use towline_pod::conditions::{self, Facts};
use towline_pod::phase::{self, Phase};

pub(crate) use self::manager::StatusManager;
use crate::images::Trouble;
use crate::sync::actions::Health;
use crate::view::{self, PodView};

/// What a status is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) view: &'a PodView,
    /// The status made last, or the one in the API.
    pub(crate) previous: &'a PodStatus,
    /// Why a container could not be started in the last sync.
    pub(crate) trouble: &'a dyn Fn(&str) -> Option<Trouble>,
    /// What the probes say of a container that runs.
    pub(crate) health: &'a dyn Fn(&str) -> (Health, bool),
    /// The runtime's name, in container ids.
    pub(crate) runtime: &'a str,
    pub(crate) host_ip: &'a str,
    /// Nothing is started any more.
    pub(crate) terminal: bool,
    pub(crate) now: Timestamp,
}

/// Makes the status. Transition times of conditions are set where it is written.
pub(crate) fn generate(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let Some(spec) = &pod.spec else {
        return inputs.previous.clone();
    };
    let lists = containers::statuses(inputs);
    let phase = phase::pod_phase(spec, &lists.init, &lists.main, inputs.terminal);
    let sandbox = inputs.view.ready_sandbox();
    let ips = sandbox.map(|s| s.ips.clone()).unwrap_or_default();
    let ips = if view::host_network(pod) && sandbox.is_some() {
        vec![inputs.host_ip.to_owned()]
    } else {
        ips
    };
    let mut status = PodStatus {
        phase: Some(phase.as_str().to_owned()),
        host_ip: Some(inputs.host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: inputs.host_ip.to_owned(),
        }]),
        start_time: inputs
            .previous
            .start_time
            .clone()
            .or(Some(Time(inputs.now))),
        qos_class: inputs.previous.qos_class.clone(),
        observed_generation: pod.metadata.generation,
        pod_ip: inputs.previous.pod_ip.clone(),
        pod_ips: inputs.previous.pod_ips.clone(),
        ..PodStatus::default()
    };
    if let Some(first) = ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
    if is_terminal(inputs.previous) {
        // Once final, phase and reason stay.
        status.phase.clone_from(&inputs.previous.phase);
        status.reason.clone_from(&inputs.previous.reason);
        status.message.clone_from(&inputs.previous.message);
    }
    if status.qos_class.is_none() {
        status.qos_class = Some(towline_pod::qos::class(spec).to_owned());
    }
    let sandbox_ready = sandbox.is_some_and(|s| view::host_network(pod) || !s.ips.is_empty());
    set_conditions(
        pod,
        &mut status,
        &lists.init,
        &lists.main,
        phase,
        sandbox_ready,
    );
    status.container_statuses = Some(lists.main);
    status.init_container_statuses = (!lists.init.is_empty()).then_some(lists.init);
    status.ephemeral_container_statuses = (!lists.ephemeral.is_empty()).then_some(lists.ephemeral);
    status
}

fn set_conditions(
    pod: &Pod,
    status: &mut PodStatus,
    init: &[k8s_openapi::api::core::v1::ContainerStatus],
    main: &[k8s_openapi::api::core::v1::ContainerStatus],
    phase: Phase,
    sandbox_ready: bool,
) {
    status.conditions = Some(conditions::all(&Facts {
        pod,
        init,
        containers: Some(main),
        phase,
        sandbox_ready,
    }));
}

/// Whether a phase is final.
pub(crate) fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The status of a pod that was on the node longer than it may.
pub(crate) fn deadline_exceeded(status: &mut PodStatus) {
    status.phase = Some("Failed".to_owned());
    status.reason = Some("DeadlineExceeded".to_owned());
    status.message =
        Some("Pod was active on the node longer than the specified deadline".to_owned());
}

/// Whether the pod has been on the node longer than `activeDeadlineSeconds`.
pub(crate) fn past_deadline(pod: &Pod, status: &PodStatus, now: Timestamp) -> bool {
    let limit = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds);
    let (Some(limit), Some(start)) = (limit, &status.start_time) else {
        return false;
    };
    crate::clock::between(start.0, now).as_secs() >= limit.unsigned_abs()
}
