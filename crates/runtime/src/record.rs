//! What is remembered of sandboxes and containers, on disk and across restarts: one versioned JSON each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use towline_sys::fs::{self, FsError};

use crate::spec::resources::Resources;

/// Version of both documents.
pub(crate) const VERSION: u32 = 1;

/// Most that is read of a record, in bytes.
const MAX_RECORD: u64 = 4 << 20;

/// A string map in a stable order.
pub(crate) type Map = BTreeMap<String, String>;

/// Whose namespace is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Mode {
    /// The pod's.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The node's.
    Node,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) attempt: u32,
    pub(crate) hostname: String,
    pub(crate) log_directory: String,
    pub(crate) runtime_handler: String,
    pub(crate) labels: Map,
    pub(crate) annotations: Map,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) ready: bool,
    pub(crate) network: Mode,
    pub(crate) pid: Mode,
    pub(crate) ipc: Mode,
    pub(crate) address: Option<Ipv4Addr>,
    /// The pod's cgroup, below which containers are.
    pub(crate) cgroup: String,
    /// Whether this runtime made that cgroup, and so removes it.
    pub(crate) owns_cgroup: bool,
    /// The shim's process, for the case that its socket is gone.
    pub(crate) shim_pid: i32,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// Made, not started.
    Created,
    /// Started.
    Running,
    /// Ended.
    Exited,
}

/// A mount as the kubelet reads it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MountRecord {
    pub(crate) container_path: String,
    pub(crate) host_path: String,
    pub(crate) readonly: bool,
    /// CRI's number.
    pub(crate) propagation: i32,
    /// The id of the image that is mounted; empty for a path of the host.
    #[serde(default)]
    pub(crate) image: String,
}

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// The image as the caller named it.
    pub(crate) image: String,
    /// The image as the user wrote it, where the caller says.
    pub(crate) user_specified_image: String,
    /// Digest of its config.
    pub(crate) image_id: String,
    /// Repository and manifest digest, where the image came from a registry; else its id.
    pub(crate) image_ref: String,
    pub(crate) labels: Map,
    pub(crate) annotations: Map,
    pub(crate) log: Option<PathBuf>,
    /// Nanoseconds since 1970; 0 where it has not happened.
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) phase: Phase,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) mounts: Vec<MountRecord>,
    pub(crate) resources: Resources,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// The kernel's number of the signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// The same as CRI numbers it; 0 where the caller named none.
    pub(crate) cri_stop_signal: i32,
}

/// Writes a record durably; only root may read it, since annotations can hold anything.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), FsError> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(|e| FsError::new("encode", path, std::io::Error::other(e)))?;
    fs::write_atomic_mode(path, &text, 0o600)
}

/// Reads a record; `None` where there is none or it is not one of this version.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FsError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Some(bytes) = fs::read_optional(path, MAX_RECORD)? else {
        return Ok(None);
    };
    let known = serde_json::from_slice::<Head>(&bytes).is_ok_and(|h| h.version == VERSION);
    let record = serde_json::from_slice(&bytes);
    if let (true, Err(error)) = (known, &record) {
        tracing::warn!(path = %path.display(), %error, "a record does not read and is dropped");
    }
    Ok(record.ok().filter(|_| known))
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_nanos()).ok())
        .unwrap_or_default()
}

/// A new id: 64 hex digits, as every runtime has them.
pub(crate) fn new_id() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}
