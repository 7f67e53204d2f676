//! Unpacked layers: staged, then named by their diffID.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_oci::Digest;
use towline_sys::fs;

use crate::StoreError;
use crate::state::Inner;
use crate::tree::remove_tree;

/// The file beside a layer's `fs` that holds its [`LayerInfo`].
pub(crate) const INFO: &str = "layer.json";

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerInfo {
    /// Bytes of its files, each counted once.
    pub size: u64,
    /// Files, directories, links and whiteouts.
    pub entries: u64,
    /// The layer hides everything below it: an opaque mark at its root, which overlayfs does not know there.
    #[serde(default)]
    pub opaque_root: bool,
    /// When it was unpacked.
    pub created: Timestamp,
}

/// A layer on its way in. Dropped without [`StagedLayer::commit`] it leaves nothing.
#[derive(Debug)]
pub struct StagedLayer {
    store: Arc<Inner>,
    diff_id: Digest,
    staged: PathBuf,
    committed: bool,
}

impl StagedLayer {
    pub(crate) fn new(store: Arc<Inner>, diff_id: &Digest) -> Result<Self, StoreError> {
        let staged = store.layout.fresh("layer");
        fs::create_dir_all_mode(&staged, 0o700)?;
        let layer = Self {
            store,
            diff_id: diff_id.clone(),
            staged,
            committed: false,
        };
        fs::create_dir_all_mode(layer.path(), 0o755)?;
        Ok(layer)
    }

    /// The directory to unpack into, empty at first. Its own mode and owner become those of the layer's root.
    pub fn path(&self) -> PathBuf {
        self.staged.join("fs")
    }

    /// Makes the layer durable (one `syncfs`) and gives it its name, if `actual`, the digest of the uncompressed bytes that were unpacked,
    /// is the diffID. Where the same layer is there already this one is dropped.
    pub fn commit(mut self, actual: &Digest, info: &LayerInfo) -> Result<(), StoreError> {
        if *actual != self.diff_id {
            return Err(StoreError::Mismatch {
                what: "the unpacked layer",
                expected: self.diff_id.clone(),
                actual: actual.clone(),
            });
        }
        let text = serde_json::to_vec(info).map_err(|source| StoreError::Damaged {
            path: self.staged.join(INFO),
            source,
        })?;
        fs::write_atomic_mode(self.staged.join(INFO), &text, 0o600)?;
        let store = Arc::clone(&self.store);
        store.syncer.sync(|| fs::sync_fs(&self.staged))?;
        let path = self.store.layout.layer(&self.diff_id);
        let mut state = self.store.state();
        if state.layers.contains_key(&self.diff_id) {
            return Ok(());
        }
        fs::rename(&self.staged, &path)?;
        self.committed = true;
        // The name counts only once it is durable: until then nothing may record an image that needs it.
        if let Some(dir) = path.parent() {
            fs::sync_dir(dir)?;
        }
        state.layers.insert(self.diff_id.clone(), info.clone());
        Ok(())
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = remove_tree(&self.staged) {
            tracing::warn!(%error, "a staged layer is left over; the next open removes it");
        }
    }
}

/// Reads what is known of the layer in `dir`; `None` where `dir` is not a whole layer.
pub(crate) fn read_info(dir: &Path) -> Result<Option<LayerInfo>, StoreError> {
    let Some(bytes) = fs::read_optional(dir.join(INFO), 1 << 16)? else {
        return Ok(None);
    };
    if !dir.join("fs").is_dir() {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&bytes).ok())
}
