//! Removing what nothing uses.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use towline_oci::Digest;
use towline_sys::fs;

use crate::layout::{Layout, digests_in};
use crate::record::ImageRecord;
use crate::spool::{Freed, Keep};
use crate::state::Inner;
use crate::tree::remove_tree;
use crate::{StoreError, aside, spool};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// Blobs.
    pub blobs: u64,
    /// Downloads that were cut.
    pub downloads: u64,
    /// Bytes of layers, blobs and spools together.
    pub bytes: u64,
}

impl Collected {
    fn spools(&mut self, freed: Freed) {
        self.downloads += freed.downloads;
        self.bytes += freed.bytes;
    }
}

/// Removes what nothing uses and that is older than the grace.
pub(crate) fn collect(store: &Inner, now: Timestamp) -> Result<Collected, StoreError> {
    aside::conclude_old(store);
    let options = store.options;
    let newest = SystemTime::from(now).checked_sub(options.grace);
    let old = |path: &Path| {
        let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
        matches!((modified, newest), (Ok(modified), Some(newest)) if modified <= newest)
    };
    let layout = &store.layout;
    let blobs = digests_in(&layout.blobs())?;
    let (unused_layers, unused_blobs) = {
        let state = store.state();
        let used = state.in_use();
        let layers: Vec<Digest> = state
            .layers
            .keys()
            .filter(|digest| !used.contains(digest))
            .cloned()
            .collect();
        let blobs: Vec<Digest> = blobs
            .into_iter()
            .filter(|digest| !used.contains(digest))
            .collect();
        (layers, blobs)
    };
    let mut collected = Collected::default();
    for digest in &unused_layers {
        if old(&layout.layer(digest).join(crate::layer::INFO)) {
            collect_layer(store, digest, &mut collected)?;
        }
    }
    for digest in &unused_blobs {
        if old(&layout.blob(digest)) {
            collect_blob(store, digest, &mut collected)?;
        }
    }
    collected.spools(spool::trim(store, now, Keep::of(&options))?);
    Ok(collected)
}

/// As [`collect`], and every download that was cut and that no pull waits for.
pub(crate) fn prune(store: &Inner, now: Timestamp) -> Result<Collected, StoreError> {
    let mut collected = collect(store, now)?;
    collected.spools(spool::trim(store, now, Keep::NOTHING)?);
    Ok(collected)
}

/// Removes what this image, whose record is gone, leaves unused. No grace: whoever removes an image wants its space.
pub(crate) fn collect_only(store: &Inner, image: &ImageRecord) -> Result<Collected, StoreError> {
    let mut collected = Collected::default();
    for digest in &image.diff_ids {
        collect_layer(store, digest, &mut collected)?;
    }
    for digest in image.blobs.iter().chain([&image.id, &image.manifest]) {
        collect_blob(store, digest, &mut collected)?;
    }
    Ok(collected)
}

/// Keeps no compressed layer any more, and removes those that no pull in flight uses.
pub(crate) fn forget_kept(store: &Inner) -> Result<Collected, StoreError> {
    let mut state = store.state();
    let images = state.images.values();
    let keeping = images.filter(|image| !image.blobs.is_empty());
    let (mut without, mut blobs) = (Vec::new(), Vec::new());
    for mut image in keeping.cloned() {
        blobs.append(&mut image.blobs);
        without.push(image);
    }
    store
        .records
        .change(&without.iter().collect::<Vec<_>>(), None)?;
    for image in without {
        state.images.insert(image.id.clone(), image);
    }
    drop(state);
    let mut collected = Collected::default();
    for digest in &blobs {
        collect_blob(store, digest, &mut collected)?;
    }
    Ok(collected)
}

fn collect_layer(store: &Inner, digest: &Digest, sum: &mut Collected) -> Result<(), StoreError> {
    let mut state = store.state();
    // Asked again under the guard that also gives out leases: it may be in use by now.
    if state.uses(digest) {
        return Ok(());
    }
    let Some(info) = state.layers.remove(digest) else {
        return Ok(());
    };
    let aside = store.layout.fresh("removed");
    fs::rename(store.layout.layer(digest), &aside)?;
    drop(state);
    finish(&store.layout.layer(digest), &aside)?;
    sum.layers += 1;
    sum.bytes += info.size;
    Ok(())
}

fn collect_blob(store: &Inner, digest: &Digest, sum: &mut Collected) -> Result<(), StoreError> {
    let path = store.layout.blob(digest);
    let state = store.state();
    if state.uses(digest) {
        return Ok(());
    }
    let Ok(meta) = std::fs::symlink_metadata(&path) else {
        return Ok(());
    };
    fs::remove_file(&path)?;
    drop(state);
    sum.blobs += 1;
    sum.bytes += meta.len();
    Ok(())
}

/// Takes a directory out of sight in one step, then removes it.
pub(crate) fn take_away(layout: &Layout, path: &Path) -> Result<(), StoreError> {
    let aside = layout.fresh("removed");
    fs::rename(path, &aside)?;
    finish(path, &aside)
}

/// Removes what was renamed from `path` to `aside`, once the rename is durable: half a layer must never come back under its name.
fn finish(path: &Path, aside: &Path) -> Result<(), StoreError> {
    if let Some(dir) = path.parent() {
        fs::sync_dir(dir)?;
    }
    Ok(remove_tree(aside)?)
}
