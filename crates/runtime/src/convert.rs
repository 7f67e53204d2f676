//! From CRI's messages to records and back.

use std::collections::HashMap;

use towline_cri::v1;

use crate::record::{ContainerRecord, Map, Mode, Phase, SandboxRecord};
use crate::spec::mounts::Propagation;
use crate::spec::resources::Resources;

/// A map of the wire in a stable order.
pub(crate) fn map(map: &HashMap<String, String>) -> Map {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn wire(map: &Map) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Whether all wanted labels are there.
pub(crate) fn selected(labels: &Map, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// A namespace mode; `None` for one that a sandbox or container cannot have here.
pub(crate) fn mode(number: i32) -> Option<Mode> {
    match v1::NamespaceMode::try_from(number) {
        Ok(v1::NamespaceMode::Pod) => Some(Mode::Pod),
        Ok(v1::NamespaceMode::Container) => Some(Mode::Container),
        Ok(v1::NamespaceMode::Node) => Some(Mode::Node),
        _ => None,
    }
}

fn wire_mode(mode: Mode) -> i32 {
    match mode {
        Mode::Pod => v1::NamespaceMode::Pod as i32,
        Mode::Container => v1::NamespaceMode::Container as i32,
        Mode::Node => v1::NamespaceMode::Node as i32,
    }
}

/// Mount propagation.
pub(crate) fn propagation(number: i32) -> Propagation {
    match v1::MountPropagation::try_from(number) {
        Ok(v1::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        _ => Propagation::Private,
    }
}

/// Limits.
pub(crate) fn resources(linux: &v1::LinuxContainerResources) -> Resources {
    Resources {
        cpu_period: linux.cpu_period,
        cpu_quota: linux.cpu_quota,
        cpu_shares: linux.cpu_shares,
        memory_limit: linux.memory_limit_in_bytes,
        memory_swap_limit: linux.memory_swap_limit_in_bytes,
        oom_score_adj: linux.oom_score_adj,
        cpuset_cpus: linux.cpuset_cpus.clone(),
        cpuset_mems: linux.cpuset_mems.clone(),
        hugepages: linux
            .hugepage_limits
            .iter()
            .map(|h| (h.page_size.clone(), h.limit))
            .collect(),
        unified: map(&linux.unified),
    }
}

fn wire_resources(resources: &Resources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit,
        memory_swap_limit_in_bytes: resources.memory_swap_limit,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepages
            .iter()
            .map(|(page_size, limit)| v1::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: wire(&resources.unified),
    }
}

fn sandbox_metadata(record: &SandboxRecord) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: record.name.clone(),
        uid: record.uid.clone(),
        namespace: record.namespace.clone(),
        attempt: record.attempt,
    }
}

/// State of a sandbox.
pub(crate) fn sandbox_state(record: &SandboxRecord) -> v1::PodSandboxState {
    if record.ready {
        v1::PodSandboxState::SandboxReady
    } else {
        v1::PodSandboxState::SandboxNotready
    }
}

/// A sandbox in a list.
pub(crate) fn sandbox_item(record: &SandboxRecord) -> v1::PodSandbox {
    v1::PodSandbox {
        id: record.id.clone(),
        metadata: Some(sandbox_metadata(record)),
        state: sandbox_state(record) as i32,
        created_at: record.created_at,
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// A sandbox in full.
pub(crate) fn sandbox_status(record: &SandboxRecord) -> v1::PodSandboxStatus {
    let ip = record.address.filter(|_| record.ready);
    v1::PodSandboxStatus {
        id: record.id.clone(),
        metadata: Some(sandbox_metadata(record)),
        state: sandbox_state(record) as i32,
        created_at: record.created_at,
        network: Some(v1::PodSandboxNetworkStatus {
            ip: ip.map(|a| a.to_string()).unwrap_or_default(),
            additional_ips: vec![],
        }),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace {
                options: Some(v1::NamespaceOption {
                    network: wire_mode(record.network),
                    pid: wire_mode(record.pid),
                    ipc: wire_mode(record.ipc),
                    ..Default::default()
                }),
            }),
        }),
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
        runtime_handler: record.runtime_handler.clone(),
    }
}

/// Whose figures these are.
pub(crate) fn sandbox_attributes(record: &SandboxRecord) -> v1::PodSandboxAttributes {
    v1::PodSandboxAttributes {
        id: record.id.clone(),
        metadata: Some(sandbox_metadata(record)),
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
    }
}

/// Whose figures these are.
pub(crate) fn container_attributes(record: &ContainerRecord) -> v1::ContainerAttributes {
    v1::ContainerAttributes {
        id: record.id.clone(),
        metadata: Some(container_metadata(record)),
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
    }
}

/// State of a container.
pub(crate) fn container_state(record: &ContainerRecord) -> v1::ContainerState {
    match record.phase {
        Phase::Created => v1::ContainerState::ContainerCreated,
        Phase::Running => v1::ContainerState::ContainerRunning,
        Phase::Exited => v1::ContainerState::ContainerExited,
    }
}

fn container_metadata(record: &ContainerRecord) -> v1::ContainerMetadata {
    v1::ContainerMetadata {
        name: record.name.clone(),
        attempt: record.attempt,
    }
}

fn image_spec(record: &ContainerRecord) -> v1::ImageSpec {
    v1::ImageSpec {
        image: record.image.clone(),
        user_specified_image: record.user_specified_image.clone(),
        ..Default::default()
    }
}

/// A container in a list.
pub(crate) fn container_item(record: &ContainerRecord) -> v1::Container {
    v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: Some(container_metadata(record)),
        image: Some(image_spec(record)),
        image_ref: record.image_ref.clone(),
        state: container_state(record) as i32,
        created_at: record.created_at,
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
        image_id: record.image_id.clone(),
    }
}

/// A container in full.
pub(crate) fn container_status(record: &ContainerRecord) -> v1::ContainerStatus {
    let mounts = record
        .mounts
        .iter()
        .map(|m| v1::Mount {
            container_path: m.container_path.clone(),
            host_path: m.host_path.clone(),
            readonly: m.readonly,
            propagation: m.propagation,
            image: (!m.image.is_empty()).then(|| v1::ImageSpec {
                image: m.image.clone(),
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect();
    v1::ContainerStatus {
        id: record.id.clone(),
        metadata: Some(container_metadata(record)),
        state: container_state(record) as i32,
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        image: Some(image_spec(record)),
        image_ref: record.image_ref.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: wire(&record.labels),
        annotations: wire(&record.annotations),
        mounts,
        log_path: record
            .log
            .as_deref()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default(),
        resources: Some(v1::ContainerResources {
            linux: Some(wire_resources(&record.resources)),
        }),
        image_id: record.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: record.uid.into(),
                gid: record.gid.into(),
                supplemental_groups: record.groups.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
        stop_signal: record.cri_stop_signal,
    }
}
