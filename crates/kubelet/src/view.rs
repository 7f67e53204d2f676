//! What the runtime holds for one pod, in the kubelet's own words.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// Labels and annotations by which the kubelet finds its own again.
pub(crate) mod key {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTARTS: &str = "io.kubernetes.container.restartCount";
    pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// A pod sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) ready: bool,
    pub(crate) attempt: u32,
    pub(crate) created: Timestamp,
    /// The primary address first. Empty on the host's network.
    pub(crate) ips: Vec<String>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Has ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox: String,
    pub(crate) state: State,
    /// The image as the runtime names it.
    pub(crate) image: String,
    /// `repo@digest` where the runtime knows one.
    pub(crate) image_ref: String,
    pub(crate) created: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) restarts: u32,
    /// Of the fields whose change restarts the container.
    pub(crate) hash: String,
    pub(crate) log_path: String,
    /// On the host; empty where there is no file.
    pub(crate) message_file: String,
    pub(crate) message_from_logs: bool,
    pub(crate) grace_seconds: Option<i64>,
}

/// Everything that the runtime holds for one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodView {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Newest first.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub(crate) containers: Vec<Instance>,
}

impl PodView {
    /// The newest sandbox.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest sandbox if it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of this name.
    pub(crate) fn latest(&self, name: &str) -> Option<&Instance> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of this name in the newest sandbox.
    pub(crate) fn latest_here(&self, name: &str) -> Option<&Instance> {
        let sandbox = self.sandbox()?;
        self.latest(name).filter(|c| c.sandbox == sandbox.id)
    }

    /// Containers of this name, newest first.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// Containers that run, or may.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Instance> {
        self.containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown))
    }

    /// Sorts newest first.
    pub(crate) fn sort(&mut self) {
        self.sandboxes
            .sort_by_key(|s| std::cmp::Reverse((s.created, s.attempt)));
        self.containers
            .sort_by_key(|c| std::cmp::Reverse((c.created, c.restarts)));
    }
}

/// Which list of the pod a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// `initContainers` without `restartPolicy: Always`.
    Init,
    /// `initContainers` with `restartPolicy: Always`.
    Sidecar,
    /// `containers`.
    Main,
    /// `ephemeralContainers`.
    Ephemeral,
}

/// Every container of the pod with its role: init containers and sidecars, then containers, then ephemeral ones.
pub(crate) fn containers(pod: &Pod) -> Vec<(Role, Container)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let init = spec.init_containers.iter().flatten().map(|c| {
        let role = if c.restart_policy.as_deref() == Some("Always") {
            Role::Sidecar
        } else {
            Role::Init
        };
        (role, c.clone())
    });
    let main = spec.containers.iter().map(|c| (Role::Main, c.clone()));
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|c| (Role::Ephemeral, from_ephemeral(c)));
    init.chain(main).chain(ephemeral).collect()
}

/// The container of this name with its role.
pub(crate) fn container(pod: &Pod, name: &str) -> Option<(Role, Container)> {
    containers(pod).into_iter().find(|(_, c)| c.name == name)
}

fn from_ephemeral(c: &EphemeralContainer) -> Container {
    Container {
        name: c.name.clone(),
        image: c.image.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        working_dir: c.working_dir.clone(),
        env: c.env.clone(),
        env_from: c.env_from.clone(),
        image_pull_policy: c.image_pull_policy.clone(),
        security_context: c.security_context.clone(),
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        termination_message_path: c.termination_message_path.clone(),
        termination_message_policy: c.termination_message_policy.clone(),
        volume_mounts: c.volume_mounts.clone(),
        resources: c.resources.clone(),
        ..Container::default()
    }
}

/// The value whose change restarts a running container: name and image.
pub(crate) fn hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

/// Labels of the pod that name it to the runtime.
pub(crate) fn labels(pod: &Pod) -> BTreeMap<String, String> {
    BTreeMap::from([
        (key::POD_NAME.to_owned(), name(pod).to_owned()),
        (key::POD_NAMESPACE.to_owned(), namespace(pod).to_owned()),
        (key::POD_UID.to_owned(), uid(pod).to_owned()),
    ])
}

/// The pod's uid, empty where the API gave none.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `NAME_NAMESPACE(UID)`, the form of messages.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Whether the pod uses the host's network.
pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
}

/// The restart policy that holds for a container.
pub(crate) fn restart_policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container
        .restart_policy
        .as_deref()
        .or_else(|| pod.spec.as_ref()?.restart_policy.as_deref())
        .unwrap_or("Always")
}
