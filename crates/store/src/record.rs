//! What the store knows of an image.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_oci::Digest;

/// What the store knows of an image. Its layers are kept while the record is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// Digest of the config: the image's identity.
    pub id: Digest,
    /// Digest of the manifest, a blob of the store.
    pub manifest: Digest,
    /// The config as it came, whose digest is `id`.
    pub config: String,
    /// Names with a tag, canonical. A name belongs to one image.
    pub names: Vec<String>,
    /// Names with a digest, canonical. Such a name belongs to one image too: of an index's images to the one that was pulled last.
    pub repo_digests: Vec<String>,
    /// Repositories with the digest of the image's own manifest, where it can be had again. No other image takes them.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Compressed layers that are kept on purpose, as blobs of the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Compressed bytes: manifest, config, layers.
    pub size: u64,
    /// Never collected.
    pub pinned: bool,
    /// When the record was made.
    pub created: Timestamp,
    /// When the image was last pulled or held.
    pub last_used: Timestamp,
}

impl ImageRecord {
    /// This record without the names that `other` has; `None` where it has none of them.
    pub(crate) fn without_names_of(&self, other: &Self) -> Option<Self> {
        let mut left = self.clone();
        left.names.retain(|name| !other.names.contains(name));
        left.repo_digests
            .retain(|name| !other.repo_digests.contains(name));
        (left != *self).then_some(left)
    }
}
