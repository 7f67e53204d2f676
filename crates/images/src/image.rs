//! An image of the node, as others see it.

use towline_oci::{Digest, ImageConfig};
use towline_store::{ImageRecord, Store, StoreError};

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
    /// Names with the digest of the image's own manifest, under which it can be had again; no other image takes them.
    pub sources: Vec<String>,
    /// Bytes as the registry stores them: manifest, config and compressed layers.
    pub size: u64,
    /// Bytes of the unpacked layers on disk.
    pub unpacked_size: u64,
    /// How to start it.
    pub config: ImageConfig,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Compressed layers that are kept on purpose, and their bytes together.
    pub kept: (Vec<Digest>, u64),
    /// Never removed by the kubelet's garbage collection.
    pub pinned: bool,
}

impl Image {
    /// The image of a record.
    pub(crate) fn of(store: &Store, record: &ImageRecord) -> Result<Self, StoreError> {
        let config = ImageConfig::parse(record.config.as_bytes());
        let config = config.map_err(|error| StoreError::Config {
            id: record.id.clone(),
            source: Box::new(error),
        })?;
        let layers = record.diff_ids.iter();
        let sizes = layers.filter_map(|diff_id| store.layer_info(diff_id));
        let kept = record.blobs.iter();
        let kept = kept.filter_map(|digest| store.blob_size(digest)).sum();
        Ok(Self {
            id: record.id.clone(),
            manifest: record.manifest.clone(),
            repo_tags: record.names.clone(),
            repo_digests: record.repo_digests.clone(),
            sources: record.sources.clone(),
            size: record.size,
            unpacked_size: sizes.map(|info| info.size).sum(),
            config,
            diff_ids: record.diff_ids.clone(),
            kept: (record.blobs.clone(), kept),
            pinned: record.pinned,
        })
    }
}
