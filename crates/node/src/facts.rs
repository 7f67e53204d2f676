//! What a running node says of itself on disk, so that commands on the same machine find it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towline_sys::fs::{self, FsError};

const API_VERSION: &str = "towline.dev/v1";
const KIND: &str = "NodeFacts";
/// The file, in the data directory, beside the kubeconfig.
const FILE: &str = "node.json";

/// Where the parts of a node listen, and which name servers it asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Version of the format.
    api_version: String,
    /// Kind of the format.
    kind: String,
    /// Name of the node in the cluster.
    pub node: String,
    /// Process id of the node; a reader checks that it lives.
    pub pid: u32,
    /// The API server.
    pub api: SocketAddr,
    /// The registry.
    pub registry: SocketAddr,
    /// The kubelet's endpoint.
    pub kubelet: SocketAddr,
    /// The CRI socket.
    pub cri: PathBuf,
    /// Name servers asked instead of the system's; empty for the system's.
    pub resolver: Vec<SocketAddr>,
    /// Trees of `hosts.toml` files that name its mirrors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts_dirs: Vec<PathBuf>,
    /// The `registries.conf` that names its mirrors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries_conf: Option<PathBuf>,
    /// Files of certificate authorities that are trusted for registries beside the system's; PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<PathBuf>,
}

impl Facts {
    pub(crate) fn new(
        node: String,
        (api, registry, kubelet): (SocketAddr, SocketAddr, SocketAddr),
        cri: PathBuf,
        resolver: Vec<SocketAddr>,
    ) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            node,
            pid: std::process::id(),
            api,
            registry,
            kubelet,
            cri,
            resolver,
            hosts_dirs: Vec::new(),
            registries_conf: None,
            authorities: Vec::new(),
        }
    }

    /// The same with what names its mirrors.
    pub(crate) fn with_mirrors(self, sources: &towline_distribution::Sources) -> Self {
        Self {
            hosts_dirs: sources.hosts_dirs.clone(),
            registries_conf: sources.registries_conf.clone(),
            ..self
        }
    }

    /// Reads the facts of the node that keeps this data directory. `None` where there is none, it is of another version, or its
    /// process is gone.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let text = std::fs::read(data_dir.join(FILE)).ok()?;
        let facts: Self = serde_json::from_slice(&text).ok()?;
        let alive = Path::new("/proc").join(facts.pid.to_string()).exists();
        (facts.api_version == API_VERSION && facts.kind == KIND && alive).then_some(facts)
    }

    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), FsError> {
        // Strings, numbers and paths always have a JSON form.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        fs::write_atomic(data_dir.join(FILE), &text)
    }

    pub(crate) fn remove(data_dir: &Path) {
        // Gone already is as good.
        drop(std::fs::remove_file(data_dir.join(FILE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_node_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut facts = Facts::new(
            "n".into(),
            (local, local, local),
            "/run/x.sock".into(),
            vec![],
        );
        assert_eq!(Facts::read(dir.path()), None);
        facts.write(dir.path()).unwrap();
        assert_eq!(Facts::read(dir.path()), Some(facts.clone()));
        facts.pid = u32::MAX;
        facts.write(dir.path()).unwrap();
        assert_eq!(Facts::read(dir.path()), None);
    }
}
