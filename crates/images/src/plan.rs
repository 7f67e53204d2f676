//! What a pull would do.

use serde::{Deserialize, Serialize};
use towline_oci::Digest;

/// What a pull would do, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The image's id: its config's digest.
    pub id: Digest,
    /// Digest of the manifest for the platform.
    pub manifest: Digest,
    /// One entry a layer, lowest first.
    pub layers: Vec<PlannedLayer>,
}

/// What a pull would do about one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLayer {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// The layer is here; where its compressed bytes are to be kept, they are too.
    pub present: bool,
    /// Compressed bytes that are here: those that an earlier attempt left, or all, where they were kept.
    pub kept: u64,
}

impl Plan {
    /// Compressed bytes of all layers.
    pub fn total(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Bytes that would be downloaded.
    pub fn to_fetch(&self) -> u64 {
        let missing = self.layers.iter().filter(|layer| !layer.present);
        missing
            .map(|layer| layer.size.saturating_sub(layer.kept))
            .sum()
    }
}
