//! What a shim answers.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Response {
    /// To `Hello`.
    Hello(Hello),
    /// Done; there is nothing to say.
    Done,
    /// One container.
    State(ContainerState),
    /// All containers.
    List {
        /// In order of their creation.
        containers: Vec<ContainerState>,
    },
    /// A piece of what an exec wrote.
    Output {
        /// Where to.
        stream: Stream,
        /// The bytes (base64 on the wire), at most 1 MiB.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        data: Vec<u8>,
    },
    /// An exec has ended.
    Exec(ExecExit),
    /// What a container uses.
    Stats(ContainerStats),
    /// The request failed.
    Failure(Failure),
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD
        .decode(text)
        .map_err(serde::de::Error::custom)
}

/// The greeting: who answers, and in which version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version spoken on this connection from now on.
    pub version: u32,
    /// The sandbox's id.
    pub sandbox: String,
    /// The shim's process id.
    pub pid: i32,
    /// The pod's namespaces.
    pub namespaces: Namespaces,
}

/// Paths of the pod's namespaces, for containers' specs. `None` where the pod
/// uses the host's (or, for `pid`, where each container has its own).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    #[serde(default)]
    pub network: Option<PathBuf>,
    /// System V IPC.
    #[serde(default)]
    pub ipc: Option<PathBuf>,
    /// Host name.
    #[serde(default)]
    pub uts: Option<PathBuf>,
    /// Process ids, when shared by the pod.
    #[serde(default)]
    pub pid: Option<PathBuf>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Made, not started.
    Created,
    /// Its init process runs.
    Running,
    /// Its init process has ended, and everything that it wrote is in the log.
    Exited,
}

/// A container as the shim knows it. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Version of this document as a file, [`VERSION`](crate::VERSION).
    pub version: u32,
    /// Its id.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Process id of its init, in the host's namespace; kept after its end.
    pub pid: i32,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its log.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Its cgroup's path, `linux.cgroupsPath` of the spec.
    pub cgroup: String,
    /// When it was made.
    pub created_at: i64,
    /// When it was started.
    #[serde(default)]
    pub started_at: Option<i64>,
    /// How and when it ended.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it because its memory limit was
    /// reached.
    #[serde(default)]
    pub oom_killed: bool,
    /// When.
    pub finished_at: i64,
}

/// A stream of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How an exec ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Whether it was killed because its time was over.
    #[serde(default)]
    pub timed_out: bool,
    /// Whether output was dropped because of the limit.
    #[serde(default)]
    pub truncated: bool,
}

/// What a container uses now. `None` where its cgroup does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// When it was measured, nanoseconds since 1970.
    pub timestamp: i64,
    /// CPU time used so far, in nanoseconds.
    #[serde(default)]
    pub cpu_usage_ns: Option<u64>,
    /// Memory used, with the page cache, in bytes.
    #[serde(default)]
    pub memory_usage: Option<u64>,
    /// Memory that cannot be given back at once: usage less inactive files.
    #[serde(default)]
    pub memory_working_set: Option<u64>,
    /// Anonymous memory, in bytes.
    #[serde(default)]
    pub memory_rss: Option<u64>,
    /// Page faults so far.
    #[serde(default)]
    pub page_faults: Option<u64>,
    /// Major page faults so far.
    #[serde(default)]
    pub major_page_faults: Option<u64>,
    /// The memory limit in bytes, when there is one.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For decisions.
    pub code: FailureCode,
    /// For people, with the causes.
    pub message: String,
}

/// Why a request failed, for decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FailureCode {
    /// No common version of the protocol.
    Version,
    /// A request that makes no sense: a bad id, `Hello` missing, no command.
    BadRequest,
    /// No such container.
    NotFound,
    /// There is such a container already.
    AlreadyExists,
    /// Not in the container's present state.
    WrongState,
    /// The command does not exist in the container. The message is
    /// `exec: "NAME": ...` as every runtime words it.
    ExecutableNotFound,
    /// The command exists and cannot be executed: no permission, a directory,
    /// a format that this machine does not run.
    ExecutableUnusable,
    /// The working directory does not exist or is outside of the container.
    WorkingDirectory,
    /// Anything else.
    #[serde(other)]
    Internal,
}
