//! Unpacked layers: staged, sealed when they are whole, named by their diffID when they are durable.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_oci::Digest;
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::listing::LISTING;
use crate::state::Inner;
use crate::tree::remove_tree;
use crate::{inventory, listing};

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
    /// [`crate::state::State::failed_syncs`] as the layer began.
    failed_syncs: u64,
}

impl StagedLayer {
    pub(crate) fn new(store: Arc<Inner>, diff_id: &Digest) -> Result<Self, StoreError> {
        let staged = store.layout.fresh("layer");
        fs::create_dir_all_mode(&staged, 0o700)?;
        let failed_syncs = store.state().failed_syncs;
        let layer = Self {
            store,
            failed_syncs,
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

    /// The file for the list of the layer's files, which `verify` compares; see [`crate::Listing`].
    pub fn listing(&self) -> Result<File, StoreError> {
        let path = self.staged.join(LISTING);
        Ok(File::create(&path).at("create", &path)?)
    }

    /// Goes without the list: one path of the layer could mean two things.
    pub fn unlist(&self) -> Result<(), StoreError> {
        Ok(fs::remove_file(self.staged.join(LISTING))?)
    }

    /// Says that the layer is whole, if `actual`, the digest of the uncompressed bytes that were unpacked, is the diffID. From here on
    /// `kill -9` does not lose it, power loss does until [`crate::Store::settle`]. Where the same layer is there already this one is dropped.
    pub fn seal(mut self, actual: &Digest, info: &LayerInfo) -> Result<(), StoreError> {
        if *actual != self.diff_id {
            return Err(StoreError::Mismatch {
                what: "the unpacked layer",
                expected: self.diff_id.clone(),
                actual: actual.clone(),
            });
        }
        let path = self.staged.join(INFO);
        let text = serde_json::to_vec(info).map_err(|source| StoreError::Damaged {
            path: path.clone(),
            source,
        })?;
        // No sync of its own: one of the whole file system comes before the layer gets its name.
        std::fs::write(&path, &text).at("write", &path)?;
        if !self.staged.join(listing::LISTING).exists() {
            // A path was written twice, or through a symlink: what is there now counts.
            listing::write(&self.staged)?;
        }
        inventory::write(&self.staged)?;
        let sealed = self.store.layout.sealed(&self.diff_id);
        let mut state = self.store.state();
        if state.failed_syncs != self.failed_syncs {
            let lost = std::io::Error::from(rustix::io::Errno::IO);
            return Err(fs::FsError::new("sync", &self.staged, lost).into());
        }
        if state.has_layer(&self.diff_id) {
            return Ok(());
        }
        fs::rename(&self.staged, &sealed)?;
        self.committed = true;
        let info = info.clone();
        state
            .sealed
            .insert(self.diff_id.clone(), Sealed { info, path: sealed });
        Ok(())
    }

    /// Seals the layer and makes it durable.
    pub fn commit(self, actual: &Digest, info: &LayerInfo) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        self.seal(actual, info)?;
        settle(&store)
    }
}

/// A whole layer that has no name yet.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) info: LayerInfo,
    pub(crate) path: PathBuf,
}

/// Makes every sealed layer durable with one `syncfs`, then gives them their names. Whoever comes meanwhile shares the next sync.
pub(crate) fn settle(store: &Inner) -> Result<(), StoreError> {
    let batch: Vec<Digest> = store.state().sealed.keys().cloned().collect();
    if batch.is_empty() {
        return Ok(());
    }
    flush(store)?;
    let mut state = store.state();
    let mut dirs = BTreeSet::new();
    for diff_id in &batch {
        let path = store.layout.layer(diff_id);
        let Some(sealed) = state.sealed.get_mut(diff_id) else {
            continue;
        };
        fs::rename(&sealed.path, &path)?;
        dirs.extend(path.parent().map(Path::to_owned));
        sealed.path = path;
    }
    // The names count only once they are durable: until then nothing may record an image that needs them.
    for dir in dirs {
        fs::sync_dir(dir)?;
    }
    for diff_id in batch {
        if let Some(sealed) = state.sealed.remove(&diff_id) {
            state.layers.insert(diff_id, sealed.info);
        }
    }
    Ok(())
}

/// Writes everything to the disk. The kernel tells only once that it could not: then nothing that was written before counts any more, neither
/// the layers that are sealed nor those on their way in.
pub(crate) fn flush(store: &Inner) -> Result<(), StoreError> {
    let Err(error) = store.syncer.sync(|| fs::sync_fs(store.layout.root())) else {
        return Ok(());
    };
    let mut state = store.state();
    state.failed_syncs += 1;
    let lost = std::mem::take(&mut state.sealed);
    drop(state);
    for sealed in lost.into_values() {
        // The next start removes what cannot be removed now.
        remove_tree(&sealed.path).ok();
    }
    Err(error.into())
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
