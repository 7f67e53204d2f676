//! The config of a runnable image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_as_default;
use crate::{Digest, Platform};

/// The largest image config that is read.
const MAX_CONFIG_BYTES: usize = 4 << 20;

/// An image config: platform, how to start the process, and the diffIDs of the layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Platform of the image.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to start the process.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ProcessConfig,
    /// The unpacked layers.
    pub rootfs: RootFs,
}

/// The layers of an image as unpacked content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// How an image wants its process started; fields as the image-spec names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty for root.
    pub user: String,
    /// `NAME=value` entries.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// First part of the command.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Second part of the command.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// Labels. Facts for people: nothing here reads one as a control.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops the process; empty for SIGTERM.
    pub stop_signal: String,
    /// Ports, as `80/tcp`.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Paths that want a volume.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// Why bytes are not an image config.
#[derive(Debug, thiserror::Error)]
pub enum ImageConfigError {
    /// Over 4 MiB.
    #[error("the image config has {0} bytes, more than the {MAX_CONFIG_BYTES} that are read")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("not a well-formed image config")]
    Json(#[from] serde_json::Error),
}

impl ImageConfig {
    /// Reads a config blob of at most 4 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ImageConfigError::TooLarge(bytes.len()));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_mean_nothing() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["/a"],"User":"1002"},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert_eq!(config.platform, Platform::new("linux", "amd64"));
        assert_eq!(config.config.cmd, ["/a"]);
        assert!(config.diff_ids().is_empty());
    }

    #[test]
    fn a_bad_diff_id_is_refused() {
        let text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#;
        assert!(ImageConfig::parse(text).is_err());
    }
}
