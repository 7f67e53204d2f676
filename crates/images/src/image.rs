//! An image of the node, as others see it.

use towline_oci::{Digest, ImageConfig};

/// An image that is on the node, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The config's digest: the image's identity on the node.
    pub id: Digest,
    /// Digest of the manifest that was unpacked (not of an index).
    pub manifest: Digest,
    /// Names with a tag, canonical (`docker.io/library/nginx:1.27`), sorted.
    pub repo_tags: Vec<String>,
    /// Names with the digest that the name resolved to (an index's where there is one), canonical, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes as the registry stores them: manifest, config and compressed layers.
    pub size: u64,
    /// Bytes of the unpacked layers on disk.
    pub unpacked_size: u64,
    /// How to start it.
    pub config: ImageConfig,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Never removed by the kubelet's garbage collection.
    pub pinned: bool,
}
