//! How far a pull is, as values.

use serde::{Deserialize, Serialize};
use towline_oci::Digest;

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What the pull as a whole does.
    pub phase: Phase,
    /// One entry a layer, lowest first; empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
    /// What the registry wants people to be told, a line each.
    pub warnings: Vec<String>,
}

impl Progress {
    /// Compressed bytes that are here and that there are in all.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.iter().fold((0, 0), |(bytes, total), layer| {
            (bytes + layer.bytes, total + layer.total)
        })
    }
}

/// What a pull does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asks for manifest and config.
    #[default]
    Resolving,
    /// Downloads and unpacks layers.
    Layers,
    /// Makes what was unpacked durable and records the image.
    Committing,
    /// The image is there.
    Done,
}

/// How far one layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerProgress {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// What happens to it.
    pub phase: LayerPhase,
    /// Compressed bytes that are here, those of an earlier attempt included.
    pub bytes: u64,
    /// Compressed bytes in all.
    pub total: u64,
    /// Nothing was downloaded: the layer was on the node already.
    pub present: bool,
}

/// What happens to a layer. Unpacking runs along with the download; the phase names what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerPhase {
    /// Its turn has not come.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// All bytes are here; the rest is unpacked and made durable.
    Unpacking,
    /// It is in the store.
    Done,
}
