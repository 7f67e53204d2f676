//! What a client may ask.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request; the answer that is meant for each is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Request {
    /// The first on every connection: the versions that the client speaks.
    /// Answer: [`Response::Hello`](crate::Response::Hello).
    Hello {
        /// The oldest.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// Makes a container out of its bundle, ready to start: its init process
    /// waits. Answer: `State`.
    Create(Create),
    /// Starts a created container. Answer: `State`.
    Start {
        /// The container's id.
        id: String,
    },
    /// Sends a signal to the container's init process, or to all its
    /// processes. To a container that has ended it does nothing. Answer:
    /// `Done`.
    Kill {
        /// The container's id.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Send it to every process in the container's cgroup.
        #[serde(default)]
        all: bool,
    },
    /// Forgets a container that is not running (or, with `force`, kills it
    /// first) and removes its cgroup. Unknown is no error. Answer: `Done`.
    Delete {
        /// The container's id.
        id: String,
        /// Kill it when it runs.
        #[serde(default)]
        force: bool,
    },
    /// Answer: `State`.
    State {
        /// The container's id.
        id: String,
    },
    /// All containers. Answer: `List`.
    List,
    /// Waits until the container has ended, or the time is over. Answer:
    /// `State`, of which `status` says which it was.
    Wait {
        /// The container's id.
        id: String,
        /// How long; `None` for as long as it takes.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Runs a command inside a running container. Answer: any number of
    /// `Output`, then `Exec`.
    Exec(Exec),
    /// Opens the container's log file anew, after it was renamed. Answer:
    /// `Done`.
    ReopenLog {
        /// The container's id.
        id: String,
    },
    /// Answer: `Stats`.
    Stats {
        /// The container's id.
        id: String,
    },
    /// Changes limits of a created or running container. Answer: `Done`.
    Update {
        /// The container's id.
        id: String,
        /// OCI `linux.resources`; what is absent stays as it is.
        resources: serde_json::Value,
    },
    /// Kills and deletes every container, removes the pod's cgroup, and ends
    /// the shim. Answer: `Done`, after all that and before the end.
    Shutdown {
        /// Time between TERM and KILL for containers still running.
        #[serde(default)]
        grace_ms: u64,
    },
}

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Unique among all containers of the node: 1 to 128 of `A-Z a-z 0-9 _ . -`.
    pub id: String,
    /// OCI bundle: a directory with `config.json`; `root.path` in that is
    /// absolute or relative to it, and mounted already.
    pub bundle: PathBuf,
    /// File for standard output and error in CRI's log format; `None` discards
    /// them. Its directory must exist.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The container's id.
    pub id: String,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, on top of the container's environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory; `None` is the container's.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// After this time its processes are killed; `None` for never.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Most that is passed on of each output, in bytes; `None`, or more than
    /// that, is [`EXEC_OUTPUT_LIMIT`](crate::EXEC_OUTPUT_LIMIT).
    #[serde(default)]
    pub output_limit: Option<u64>,
}
