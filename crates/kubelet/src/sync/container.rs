//! The CRI form of a container.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext};
use towline_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption,
    SecurityProfile, security_profile::ProfileType,
};
use towline_pod::quantity;

use super::sandbox;
use crate::env::expand::expand;
use crate::view::{self, key};

const CPU_PERIOD: i64 = 100_000;
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a container's configuration is made from besides the pod.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    /// The image's id in the runtime.
    pub(crate) image: &'a str,
    pub(crate) restarts: u32,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) qos: &'a str,
    /// Bytes of the node's memory, for the order in which the kernel kills.
    pub(crate) node_memory: i64,
    /// Id of the container whose process namespace an ephemeral one joins.
    pub(crate) target: Option<String>,
}

/// The configuration.
pub(crate) fn config(parts: Parts<'_>) -> ContainerConfig {
    let (pod, container) = (parts.pod, parts.container);
    let lookup = |name: &str| {
        let found = parts.env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let expand_all =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|w| expand(w, &lookup)).collect();
    let mut labels: HashMap<String, String> = view::labels(pod).into_iter().collect();
    labels.insert(key::CONTAINER_NAME.to_owned(), container.name.clone());
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: parts.restarts,
        }),
        image: Some(ImageSpec {
            image: parts.image.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels,
        annotations: annotations(pod, container, parts.restarts),
        log_path: format!("{}/{}.log", container.name, parts.restarts),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(container, parts.qos, parts.node_memory)),
            security_context: Some(security(pod, container, parts.target)),
        }),
        envs: parts
            .env
            .into_iter()
            .map(|(key, value)| KeyValue { key, value })
            .collect(),
        mounts: parts.mounts,
        ..ContainerConfig::default()
    }
}

/// The path of the termination message inside the container.
pub(crate) fn message_path(container: &Container) -> &str {
    let path = container.termination_message_path.as_deref();
    path.filter(|p| !p.is_empty())
        .unwrap_or("/dev/termination-log")
}

fn annotations(pod: &Pod, container: &Container, restarts: u32) -> HashMap<String, String> {
    let policy = container
        .termination_message_policy
        .as_deref()
        .unwrap_or("File");
    let mut annotations = HashMap::from([
        (key::HASH.to_owned(), view::hash(container)),
        (key::RESTARTS.to_owned(), restarts.to_string()),
        (
            key::MESSAGE_PATH.to_owned(),
            message_path(container).to_owned(),
        ),
        (key::MESSAGE_POLICY.to_owned(), policy.to_owned()),
    ]);
    if let Some(grace) = pod
        .spec
        .as_ref()
        .and_then(|s| s.termination_grace_period_seconds)
    {
        annotations.insert(key::GRACE.to_owned(), grace.to_string());
    }
    annotations
}

/// CPU, memory, and the order in which the kernel kills when memory is short.
pub(crate) fn resources(
    container: &Container,
    qos: &str,
    node_memory: i64,
) -> LinuxContainerResources {
    let given = container.resources.as_ref();
    let limits = given.and_then(|r| r.limits.as_ref());
    let requests = given.and_then(|r| r.requests.as_ref());
    let cpu_limit = quantity::of(limits, "cpu").unwrap_or(0);
    let cpu = quantity::of(requests, "cpu").unwrap_or(cpu_limit);
    let bounded = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    let memory_limit = quantity::of(limits, "memory").map_or(0, quantity::units);
    let memory = quantity::of(requests, "memory").map_or(memory_limit, quantity::units);
    let quota = bounded(cpu_limit * i128::from(CPU_PERIOD) / 1000);
    LinuxContainerResources {
        cpu_shares: bounded(cpu * 1024 / 1000).clamp(2, 262_144),
        cpu_period: CPU_PERIOD,
        cpu_quota: if cpu_limit > 0 { quota.max(1000) } else { 0 },
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score(qos, memory, node_memory),
        ..LinuxContainerResources::default()
    }
}

fn oom_score(qos: &str, request: i64, node_memory: i64) -> i64 {
    match qos {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = 1000_i128 * i128::from(request) / i128::from(node_memory.max(1));
            i64::try_from(1000 - share).unwrap_or(2).clamp(3, 999)
        }
    }
}

fn security(
    pod: &Pod,
    container: &Container,
    target: Option<String>,
) -> LinuxContainerSecurityContext {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect();
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        run_as_user: own
            .run_as_user
            .or_else(|| of_pod?.run_as_user)
            .map(sandbox::number),
        run_as_group: own
            .run_as_group
            .or_else(|| of_pod?.run_as_group)
            .map(sandbox::number),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: sandbox::groups(of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { paths(&MASKED) },
        readonly_paths: if unmasked {
            Vec::new()
        } else {
            paths(&READ_ONLY)
        },
        seccomp: Some(seccomp(
            own.seccomp_profile
                .as_ref()
                .or_else(|| of_pod?.seccomp_profile.as_ref()),
        )),
        ..LinuxContainerSecurityContext::default()
    }
}

fn namespaces(pod: &Pod, target: Option<String>) -> NamespaceOption {
    let mut namespaces = sandbox::namespaces(pod);
    if let Some(target) = target {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    namespaces
}

fn seccomp(profile: Option<&SeccompProfile>) -> SecurityProfile {
    let (kind, file) = match profile {
        Some(profile) if profile.type_ == "RuntimeDefault" => (ProfileType::RuntimeDefault, None),
        Some(profile) if profile.type_ == "Localhost" => {
            (ProfileType::Localhost, profile.localhost_profile.clone())
        }
        _ => (ProfileType::Unconfined, None),
    };
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file.unwrap_or_default(),
    }
}

/// Why a container that must not run as root would; nothing where it does not, or may.
pub(crate) fn root_problem(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Option<String> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let get = |f: fn(&SecurityContext) -> Option<bool>| own.and_then(f);
    let must_not = get(|c| c.run_as_non_root).or_else(|| of_pod?.run_as_non_root);
    if must_not != Some(true) {
        return None;
    }
    let user = own
        .and_then(|c| c.run_as_user)
        .or_else(|| of_pod?.run_as_user);
    let at = format!(
        "(pod: {:?}, container: {})",
        view::full_name(pod),
        container.name
    );
    let as_root =
        user.is_none() && (image_uid == Some(0) || (image_uid.is_none() && image_user.is_empty()));
    if user == Some(0) {
        return Some(format!("container's runAsUser breaks non-root policy {at}"));
    }
    if as_root {
        return Some(format!(
            "container has runAsNonRoot and image will run as root {at}"
        ));
    }
    (user.is_none() && image_uid.is_none()).then(|| {
        format!("container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {at}")
    })
}

/// The host's file for the termination message of one instance.
pub(crate) fn message_file(pod_dir: &Path, container: &str, restarts: u32) -> std::path::PathBuf {
    crate::volumes::mounts::container_dir(pod_dir, container).join(format!("message-{restarts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn resources_become_cgroup_values() {
        let burstable = container(serde_json::json!({"name": "c", "resources": {
            "requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}}}));
        let made = resources(&burstable, "Burstable", 2 << 30);
        assert_eq!(
            (made.cpu_shares, made.cpu_quota, made.cpu_period),
            (102, 50_000, 100_000)
        );
        assert_eq!(
            (made.memory_limit_in_bytes, made.oom_score_adj),
            (1 << 30, 750)
        );
        let none = resources(
            &container(serde_json::json!({"name": "c"})),
            "BestEffort",
            1,
        );
        assert_eq!(
            (none.cpu_shares, none.cpu_quota, none.oom_score_adj),
            (2, 0, 1000)
        );
    }

    #[test]
    fn root_is_refused_where_it_must_be() {
        let pod = Pod::default();
        let must_not =
            container(serde_json::json!({"name": "c", "securityContext": {"runAsNonRoot": true}}));
        let problem = |uid, user| root_problem(&pod, &must_not, uid, user);
        assert!(
            problem(Some(0), "")
                .unwrap()
                .contains("image will run as root")
        );
        assert!(
            problem(None, "")
                .unwrap()
                .contains("image will run as root")
        );
        assert!(
            problem(None, "app")
                .unwrap()
                .contains("non-numeric user (app)")
        );
        assert_eq!(problem(Some(1000), ""), None);
        let free = container(serde_json::json!({"name": "c"}));
        assert_eq!(root_problem(&pod, &free, Some(0), ""), None);
    }
}
