//! What a shim is told at its start, and its answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Namespaces;

/// The pod, as the runtime writes it to
/// [`CONFIG_FILE`](crate::CONFIG_FILE) before it starts the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Version of this document, [`VERSION`](crate::VERSION).
    pub version: u32,
    /// The sandbox's id.
    pub id: String,
    /// The pod's host name; `None` for the host's own (and its uts namespace).
    #[serde(default)]
    pub hostname: Option<String>,
    /// The pod's network.
    pub network: Network,
    /// The pod's System V IPC and message queues.
    #[serde(default)]
    pub ipc: IpcMode,
    /// How containers see each other's processes.
    #[serde(default)]
    pub pid: PidMode,
    /// The pod's cgroup, an absolute path in the cgroup hierarchies
    /// (`/towline/pod1`): containers' cgroups should be below it. The shim
    /// kills what is in it and removes it when it shuts down.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Kernel parameters of the pod's namespaces (`net.*`, `kernel.shm*`,
    /// `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`), written by the shim once it
    /// is in them. Containers' specs must not have `linux.sysctl`.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Longest that making a container or starting a command may take, in
    /// milliseconds, before what is stuck in it is killed and the request
    /// fails; `None` is half a minute.
    #[serde(default)]
    pub patience_ms: Option<u64>,
    /// Where to listen; `None` is [`SOCKET_FILE`](crate::SOCKET_FILE) in the
    /// state directory.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// A pod's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// The host's.
    Host,
    /// The namespace pinned at this path, made by the runtime.
    Path(PathBuf),
}

/// A pod's IPC namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IpcMode {
    /// One for the pod.
    #[default]
    Pod,
    /// The host's.
    Host,
}

/// A pod's process ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PidMode {
    /// Each container has its own namespace (made by its spec: a `pid`
    /// namespace without a path).
    #[default]
    Container,
    /// One for the pod, in which a process of the shim is number 1. Its path is
    /// in [`Namespaces::pid`], to be put into the containers' specs.
    Pod,
    /// The host's (specs have no `pid` namespace).
    Host,
}

/// The one line (JSON) that the starting process prints on its standard output
/// before it ends with 0, once the shim serves its socket. On failure it
/// prints the reason on standard error and ends with 1, and nothing is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The newest protocol version that the shim speaks.
    pub version: u32,
    /// Process id of the shim.
    pub pid: i32,
    /// Its socket.
    pub socket: PathBuf,
    /// The pod's namespaces.
    pub namespaces: Namespaces,
}
