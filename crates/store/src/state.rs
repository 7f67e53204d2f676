//! What a store knows in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use towline_oci::Digest;
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::layer::{LayerInfo, Sealed};
use crate::layout::Layout;
use crate::lease::Hold;
use crate::lock::Lock;
use crate::record::ImageRecord;
use crate::records::Records;
use crate::store::Options;
use crate::syncer::Syncer;

/// What the clones of a store share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    pub(crate) records: Records,
    /// Layers that end at the same time become durable together.
    pub(crate) syncer: Syncer,
    state: Mutex<State>,
    _lock: Lock,
}

/// What is on disk, as far as decisions need it. A change of a name on disk and its change here happen under one guard.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    pub(crate) layers: HashMap<Digest, LayerInfo>,
    /// Whole layers that are not durable yet and so have no name.
    pub(crate) sealed: HashMap<Digest, Sealed>,
    /// How often the disk could not take what was written.
    pub(crate) failed_syncs: u64,
    /// Layers and blobs that pulls in flight keep, with how many do.
    pub(crate) held: HashMap<Digest, usize>,
    /// What containers keep.
    pub(crate) leases: BTreeMap<String, Hold>,
    /// Downloads that have their spool open.
    pub(crate) spooling: HashSet<Digest>,
    /// What a repair has put aside.
    pub(crate) aside: HashSet<Digest>,
}

impl Inner {
    pub(crate) fn new(
        layout: Layout,
        options: Options,
        records: Records,
        state: State,
        lock: Lock,
    ) -> Self {
        Self {
            layout,
            options,
            records,
            syncer: Syncer::default(),
            state: Mutex::new(state),
            _lock: lock,
        }
    }

    /// The state. Nobody panics half-way through a change of it, so that a poisoned guard is a good one.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a staged file durable and names it as a blob.
    pub(crate) fn name_blob(
        &self,
        file: &File,
        staged: &Path,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        file.sync_all().at("sync", staged)?;
        let path = self.layout.blob(digest);
        let state = self.state();
        fs::rename(staged, &path)?;
        drop(state);
        if let Some(dir) = path.parent() {
            fs::sync_dir(dir)?;
        }
        Ok(())
    }
}

impl State {
    /// Whether this layer is here, durable or not.
    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layers.contains_key(diff_id) || self.sealed.contains_key(diff_id)
    }

    /// Whether a pull has this download's spool open, or will have.
    pub(crate) fn spools(&self, digest: &Digest) -> bool {
        self.spooling.contains(digest) || self.held.contains_key(digest)
    }

    /// Whether an image record or a lease uses this layer or blob.
    pub(crate) fn uses(&self, digest: &Digest) -> bool {
        self.held.contains_key(digest)
            || self
                .leases
                .values()
                .any(|hold| hold.layers.contains(digest))
            || self.images.values().any(|image| {
                image.id == *digest
                    || image.manifest == *digest
                    || image.diff_ids.contains(digest)
                    || image.blobs.contains(digest)
            })
    }

    /// Compressed layers that images keep on purpose.
    pub(crate) fn kept(&self) -> HashSet<&Digest> {
        self.images
            .values()
            .flat_map(|image| &image.blobs)
            .collect()
    }

    /// Everything that records and leases use, for a walk over the whole disk.
    pub(crate) fn in_use(&self) -> HashSet<&Digest> {
        let images = self.images.values().flat_map(|image| {
            let content = image.diff_ids.iter().chain(&image.blobs);
            content.chain([&image.id, &image.manifest])
        });
        let leases = self.leases.values().flat_map(|hold| &hold.layers);
        images.chain(leases).chain(self.held.keys()).collect()
    }
}
