//! The store.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use towline_cause::Cause;
use towline_oci::Digest;
use towline_sys::format::FormatVersion;
use towline_sys::fs;

use crate::gc::{self, Collected};
use crate::layer::{self, LayerInfo, Sealed, StagedLayer};
use crate::layout::{Layout, digests_in};
use crate::lease::{self, Hold, Lease};
use crate::lock::Lock;
use crate::records::{Opened, Records};
use crate::spool::Keep;
use crate::state::{Inner, State};
use crate::tree::remove_tree;
use crate::{BlobWriter, Damage, ImageRecord, Spool, StoreError, Verified, aside, spool, verify};

const FORMAT: FormatVersion = FormatVersion::new("towline-store", 1);

/// The store's own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What nothing uses is left alone while it is younger than this.
    pub grace: Duration,
    /// A spool that no download has written to for this long is removed.
    pub spool_age: Duration,
    /// The spools together have no more bytes than this; the oldest go first.
    pub spool_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(120),
            spool_age: Duration::from_secs(24 * 3600),
            spool_bytes: 32 << 30,
        }
    }
}

/// What a store takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files of unpacked layers.
    pub layers: u64,
    /// Unpacked layers.
    pub layer_count: u64,
    /// Files, directories, links and whiteouts of unpacked layers.
    pub inodes: u64,
    /// Manifests and configs.
    pub blobs: u64,
    /// How many of them.
    pub blob_count: u64,
    /// Compressed layers that are kept on purpose.
    pub kept: u64,
    /// How many of them.
    pub kept_count: u64,
    /// Downloads that were cut.
    pub spool: u64,
    /// How many downloads were cut.
    pub spool_count: u64,
}

impl Usage {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.layers + self.blobs + self.kept + self.spool
    }
}

/// A store on disk, owned by this process. Clones are the same store; the last one gives it up.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens the store in `root` with the default rules, creating it where there is none.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Options::default())
    }

    /// Opens the store in `root`: checks its version, takes its lock, sweeps what an earlier process left unfinished.
    pub fn open_with(root: &Path, options: Options) -> Result<Self, StoreError> {
        fs::create_dir_all_mode(root, 0o700)?;
        let lock = Lock::take(root)?;
        FORMAT.check_or_write(root)?;
        let layout = Layout::new(root);
        make_dirs(&layout)?;
        let sealed = sweep(&layout)?;
        let opened = open_records(&layout)?;
        let mut state = State {
            leases: lease::read_all(&layout)?,
            layers: read_layers(&layout)?,
            aside: aside::read_all(&layout)?,
            sealed,
            ..State::default()
        };
        state.images = opened
            .images
            .into_iter()
            .map(|image| (image.id.clone(), image))
            .collect();
        let inner = Inner::new(layout, options, opened.records, state, lock);
        if let Err(error) = layer::settle(&inner) {
            tracing::warn!(%error, "layers of an earlier process are not durable yet");
        }
        aside::conclude_old(&inner);
        if opened.rebuilt {
            verify::rebuild(&inner)?;
        }
        spool::trim(&inner, Timestamp::now(), Keep::of(&options))?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    // ---- blobs

    /// Begins a blob of exactly `size` bytes with this digest.
    pub fn blob_writer(&self, digest: &Digest, size: u64) -> Result<BlobWriter, StoreError> {
        BlobWriter::new(Arc::clone(&self.inner), digest, size)
    }

    /// Writes a small blob whole. One that is here already is compared, and replaced where it rotted.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let here = self.read_blob(digest, bytes.len() as u64);
        if matches!(here, Ok(Some(here)) if here == bytes) {
            return Ok(());
        }
        let mut writer = self.blob_writer(digest, bytes.len() as u64)?;
        writer.write(bytes)?;
        writer.commit()
    }

    /// Whether this blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_size(digest).is_some()
    }

    /// The size of this blob, where it is here.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let meta = std::fs::symlink_metadata(self.inner.layout.blob(digest)).ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// Opens a blob for reading; `None` where it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        match fs::open(self.inner.layout.blob(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a blob of at most `limit` bytes; `None` where it is not here.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(fs::read_optional(self.inner.layout.blob(digest), limit)?)
    }

    /// Every blob, in no order.
    pub fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(digests_in(&self.inner.layout.blobs())?)
    }

    // ---- spool

    /// The spool of a download of `size` bytes, with what an earlier attempt left in it.
    pub fn spool(&self, digest: &Digest, size: u64) -> Result<Spool, StoreError> {
        Spool::open(Arc::clone(&self.inner), digest, size)
    }

    /// Bytes that an earlier attempt left in the spool of this download.
    pub fn spooled(&self, digest: &Digest) -> u64 {
        spool::kept(&self.inner, digest)
    }

    // ---- layers

    /// Where this layer is unpacked; `None` where it is not here.
    pub fn layer_path(&self, diff_id: &Digest) -> Option<PathBuf> {
        let here = self.inner.state().layers.contains_key(diff_id);
        here.then(|| self.inner.layout.layer(diff_id).join("fs"))
    }

    /// What is known of this layer; `None` where it is not here.
    pub fn layer_info(&self, diff_id: &Digest) -> Option<LayerInfo> {
        self.inner.state().layers.get(diff_id).cloned()
    }

    /// Begins a layer.
    pub fn begin_layer(&self, diff_id: &Digest) -> Result<StagedLayer, StoreError> {
        StagedLayer::new(Arc::clone(&self.inner), diff_id)
    }

    /// Whether this layer is here, durable or not: if not, it is once [`Store::settle`] returns.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.inner.state().has_layer(diff_id)
    }

    /// Makes every sealed layer durable, with one sync for all of them, and gives them their names.
    pub fn settle(&self) -> Result<(), StoreError> {
        layer::settle(&self.inner)
    }

    /// Begins early with what [`Store::settle`] has to write; returns when what was written before this call is on the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        layer::flush(&self.inner)
    }

    /// Bytes of files of the layers that are sealed and not durable.
    pub fn unsettled(&self) -> u64 {
        let state = self.inner.state();
        state.sealed.values().map(|sealed| sealed.info.size).sum()
    }

    // ---- images

    /// Every image record, by id.
    pub fn images(&self) -> Vec<ImageRecord> {
        self.inner.state().images.values().cloned().collect()
    }

    /// The record with this id.
    pub fn image(&self, id: &Digest) -> Option<ImageRecord> {
        self.inner.state().images.get(id).cloned()
    }

    /// The record that has this canonical name, with a tag or a digest.
    pub fn image_named(&self, name: &str) -> Option<ImageRecord> {
        let has = |names: &[String]| names.iter().any(|known| known == name);
        let state = self.inner.state();
        let mut images = state.images.values();
        let named = images.find(|image| has(&image.names) || has(&image.repo_digests));
        // Several images can have come as one manifest.
        let mut images = state.images.values();
        named
            .or_else(|| images.find(|image| has(&image.sources)))
            .cloned()
    }

    /// Writes a record, in the place of an earlier one with the same id. Names that another image had leave it. Fails where a layer, the
    /// manifest or the config is not in the store.
    pub fn record(&self, mut record: ImageRecord) -> Result<(), StoreError> {
        record.names.sort();
        record.names.dedup();
        record.repo_digests.sort();
        record.repo_digests.dedup();
        record.sources.sort();
        record.sources.dedup();
        let mut state = self.inner.state();
        for digest in &record.diff_ids {
            if !state.layers.contains_key(digest) {
                return Err(gone("layer", digest));
            }
        }
        for digest in [&record.id, &record.manifest] {
            if !self.has_blob(digest) {
                return Err(gone("blob", digest));
            }
        }
        let robbed: Vec<ImageRecord> = state
            .images
            .values()
            .filter(|other| other.id != record.id)
            .filter_map(|other| other.without_names_of(&record))
            .collect();
        let changed: Vec<&ImageRecord> = robbed.iter().chain([&record]).collect();
        self.inner.records.change(&changed, None)?;
        for image in robbed.into_iter().chain([record]) {
            state.images.insert(image.id.clone(), image);
        }
        Ok(())
    }

    /// Changes the record with this id.
    pub fn update(
        &self,
        id: &Digest,
        change: impl FnOnce(&mut ImageRecord),
    ) -> Result<ImageRecord, StoreError> {
        let mut record = self
            .image(id)
            .ok_or_else(|| StoreError::NoImage(id.clone()))?;
        change(&mut record);
        self.record(record.clone())?;
        Ok(record)
    }

    /// Removes a record with all its names, then its layers and blobs that nothing else uses. True where there was one.
    pub fn remove_image(&self, id: &Digest) -> Result<bool, StoreError> {
        let mut state = self.inner.state();
        let Some(record) = state.images.get(id).cloned() else {
            return Ok(false);
        };
        self.inner.records.change(&[], Some(id))?;
        state.images.remove(id);
        drop(state);
        gc::collect_only(&self.inner, &record)?;
        Ok(true)
    }

    // ---- leases

    /// A lease in memory, for a pull in flight.
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.inner))
    }

    /// Keeps an image's layers for `owner`, durably, until [`Store::release`].
    pub fn hold(&self, owner: &str, id: &Digest) -> Result<(), StoreError> {
        lease::check_owner(owner)?;
        let mut state = self.inner.state();
        let record = state
            .images
            .get(id)
            .ok_or_else(|| StoreError::NoImage(id.clone()))?;
        let hold = Hold {
            image: id.clone(),
            layers: record.diff_ids.clone(),
        };
        lease::write(&self.inner.layout, owner, &hold)?;
        state.leases.insert(owner.to_owned(), hold);
        Ok(())
    }

    /// Ends a hold. That there is none is no error.
    pub fn release(&self, owner: &str) -> Result<(), StoreError> {
        lease::check_owner(owner)?;
        let mut state = self.inner.state();
        if state.leases.contains_key(owner) {
            lease::remove(&self.inner.layout, owner)?;
            state.leases.remove(owner);
        }
        Ok(())
    }

    /// Every hold: owner and image.
    pub fn holds(&self) -> Vec<(String, Digest)> {
        let state = self.inner.state();
        let holds = state.leases.iter();
        holds
            .map(|(owner, hold)| (owner.clone(), hold.image.clone()))
            .collect()
    }

    // ---- the whole

    /// Removes what no record and no lease uses and that is older than the grace, and spools that are old or too many.
    pub fn gc(&self, now: Timestamp) -> Result<Collected, StoreError> {
        gc::collect(&self.inner, now)
    }

    /// As [`Store::gc`], and every download that was cut and that no pull waits for: what came of it is downloaded again.
    pub fn prune(&self, now: Timestamp) -> Result<Collected, StoreError> {
        gc::prune(&self.inner, now)
    }

    /// Keeps no compressed layer of any image any more ([`ImageRecord::blobs`]), and removes those that no pull in flight uses.
    pub fn forget_kept(&self) -> Result<Collected, StoreError> {
        gc::forget_kept(&self.inner)
    }

    /// What this image needs that is not here: layers, manifest, config, and compressed layers that it keeps.
    pub fn lacking(&self, image: &ImageRecord) -> Vec<Digest> {
        let layers = image.diff_ids.iter();
        let layers = layers.filter(|digest| !self.has_layer(digest));
        let blobs = image.blobs.iter().chain([&image.manifest, &image.id]);
        let blobs = blobs.filter(|digest| !self.has_blob(digest));
        layers.chain(blobs).cloned().collect()
    }

    /// Removes downloads that were cut, that no pull waits for, and that nobody wrote to for `idle`, the oldest first, until `enough` bytes are
    /// freed or there is none. Gives the bytes.
    pub fn free_spools(
        &self,
        now: Timestamp,
        idle: Duration,
        enough: u64,
    ) -> Result<u64, StoreError> {
        let keep = Keep {
            age: idle,
            bytes: u64::MAX,
            once_freed: enough,
        };
        Ok(spool::trim(&self.inner, now, keep)?.bytes)
    }

    /// What the store takes.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (spool_count, spool) = spool::total(&self.inner)?;
        let mut usage = Usage {
            spool,
            spool_count,
            ..Usage::default()
        };
        let blobs = self.blobs()?;
        let state = self.inner.state();
        let kept = state.kept();
        for digest in &blobs {
            let size = self.blob_size(digest).unwrap_or_default();
            if kept.contains(digest) {
                usage.kept_count += 1;
                usage.kept += size;
            } else {
                usage.blob_count += 1;
                usage.blobs += size;
            }
        }
        for info in state.layers.values() {
            usage.layers += info.size;
            usage.inodes += info.entries;
            usage.layer_count += 1;
        }
        Ok(usage)
    }

    /// Reads everything that has a digest of its own and compares, and looks whether every record has what it needs.
    pub fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        Ok(self.compare()?.damage)
    }

    /// As [`Store::verify`], and how much could not be compared.
    pub fn compare(&self) -> Result<Verified, StoreError> {
        verify::verify(&self.inner)
    }

    /// Whether there is a store in `root`.
    pub fn is_at(root: &Path) -> bool {
        Layout::new(root).records().exists()
    }

    /// Puts aside what is damaged: its image misses it until it is pulled again, or [`Store::conclude`] puts it back. False where a hold keeps
    /// it: then it stays. A repair that is cut is concluded an hour later.
    pub fn set_aside(&self, damage: &Damage) -> Result<bool, StoreError> {
        aside::set(&self.inner, damage)
    }

    /// Ends a repair: of what was put aside, what is here again or used by nothing goes, the rest gets its place again, damaged as it is.
    /// Gives the digests of the latter.
    pub fn conclude(&self) -> Result<Vec<Digest>, StoreError> {
        aside::conclude(&self.inner)
    }
}

fn gone(what: &'static str, digest: &Digest) -> StoreError {
    StoreError::Gone {
        what,
        digest: digest.clone(),
    }
}

/// Opens the records, which takes some bytes: where the disk is full, those of downloads that were cut. They come again, and without records
/// nothing else can be freed.
fn open_records(layout: &Layout) -> Result<Opened, StoreError> {
    match Records::open(&layout.records()) {
        Err(error) if error.cause() == Cause::NoSpaceLeft && spool::clear(layout)? > 0 => {
            Records::open(&layout.records())
        }
        other => other,
    }
}

fn make_dirs(layout: &Layout) -> Result<(), StoreError> {
    for dir in [layout.leases(), layout.spool(), layout.staging()] {
        fs::create_dir_all_mode(dir, 0o700)?;
    }
    for base in [layout.blobs(), layout.layers()] {
        fs::create_dir_all_mode(&base, 0o700)?;
        for algorithm in ["sha256", "sha512"] {
            fs::create_dir_all_mode(base.join(algorithm), 0o700)?;
        }
        fs::sync_dir(&base)?;
    }
    Ok(fs::sync_dir(layout.root())?)
}

/// Removes what an earlier process left unfinished; gives the layers that it sealed and that no power loss can have touched.
fn sweep(layout: &Layout) -> Result<HashMap<Digest, Sealed>, StoreError> {
    let staging = layout.staging();
    let mut kept = HashMap::new();
    for name in towline_sys::fs::read_dir_names(&staging, 10_000_000)? {
        let path = staging.join(&name);
        if let Some(diff_id) = name.to_str().and_then(|name| layout.sealed_layer(name))
            && let Some(info) = layer::read_info(&path)?
            && !layout.layer(&diff_id).exists()
        {
            kept.insert(diff_id, Sealed { info, path });
            continue;
        }
        let removed = if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            remove_tree(&path)
        } else {
            fs::remove_file(&path)
        };
        // It takes space and does no harm: no new name is like an old one.
        if let Err(error) = removed {
            tracing::warn!(%error, "what an earlier process left cannot be removed");
        }
    }
    Ok(kept)
}

fn read_layers(layout: &Layout) -> Result<HashMap<Digest, LayerInfo>, StoreError> {
    let mut layers = HashMap::new();
    for diff_id in digests_in(&layout.layers())? {
        let dir = layout.layer(&diff_id);
        if let Some(info) = layer::read_info(&dir)? {
            layers.insert(diff_id, info);
        } else {
            tracing::warn!(layer = %diff_id, "not a whole layer; removed");
            gc::take_away(layout, &dir)?;
        }
    }
    Ok(layers)
}
