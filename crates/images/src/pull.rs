//! A whole pull: resolve, choose, check, fetch, record.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Repository, Resolved, select_platform};
use towline_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};
use towline_store::{ImageRecord, Lease, Store, StoreError};
use towline_sys::task::{self, CancellationToken};

use crate::failure::given_up;
use crate::fetch::{Fetch, Settling};
use crate::helper::Helpers;
use crate::keyed::Locks;
use crate::limiter::Limiter;
use crate::slots::Slots;
use crate::unpack::Rights;
use crate::{
    Ceilings, Image, LayerPhase, LayerProgress, Phase, Plan, PlannedLayer, Progress, check,
};

/// The largest config that is fetched.
const MAX_CONFIG: u64 = 4 << 20;

/// Times that a layer is larger unpacked than compressed, as most are.
const UNPACKED: u64 = 4;

/// Connections of a pull besides each layer's first.
const SPARE: usize = 4;

/// A small layer's download ends before it has used what the link gives, and then waits for the answer to the next request: of the smallest
/// so many come in the place of a large one.
const SMALL_FOR_LARGE: u32 = 4;

/// What a layer of so many bytes takes of the downloads that run at the same time, where a large one takes [`SMALL_FOR_LARGE`].
fn share(size: u64) -> u32 {
    match size >> 20 {
        0..4 => 1,
        4..16 => 2,
        _ => SMALL_FOR_LARGE,
    }
}

/// How many of these layers come at the same time at first, of `most` large ones.
fn first(layers: &[Descriptor], most: usize) -> usize {
    let mut left = shares(most);
    let fits = |layer: &&Descriptor| {
        let share = share(layer.size) as usize;
        let fits = left >= share;
        left = left.saturating_sub(share);
        fits
    };
    layers.iter().take_while(fits).count()
}

fn shares(most: usize) -> usize {
    most.max(1)
        .saturating_mul(SMALL_FOR_LARGE as usize)
        .min(Semaphore::MAX_PERMITS)
}

/// What a pull works with.
pub(crate) struct Pull {
    pub(crate) store: Store,
    pub(crate) locks: Arc<Locks>,
    pub(crate) repository: Repository,
    pub(crate) image: Reference,
    pub(crate) platform: Platform,
    pub(crate) ceilings: Ceilings,
    pub(crate) rights: Rights,
    pub(crate) helpers: Option<Arc<Helpers>>,
    pub(crate) max_concurrent_layers: usize,
    pub(crate) connections_per_layer: usize,
    pub(crate) limiter: Option<Arc<Limiter>>,
    pub(crate) keep_blobs: bool,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) cancel: CancellationToken,
}

/// How the layers of a pull are had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Their compressed bytes stay.
    pub(crate) keep: bool,
    /// No registry is asked: what is not here ends it.
    pub(crate) offline: bool,
}

/// A manifest with its bytes and digest.
struct Found {
    digest: Digest,
    bytes: bytes::Bytes,
    manifest: Manifest,
}

impl Pull {
    /// What [`Pull::run`] would do. Asks for manifest and config, writes nothing.
    pub(crate) async fn plan(self) -> Result<Plan, Failure> {
        let resolved = self.or_cancel(Box::pin(self.repository.resolve())).await?;
        self.warn(resolved.warnings());
        let found = self.choose(resolved).await?;
        check::manifest(&found.digest, &found.manifest, &self.ceilings)?;
        let (config, _) = self.config(&found.manifest.config).await?;
        check::config(&config, &found.manifest, &self.platform)?;
        let keep = self.keeps(&found.manifest);
        let layers = found.manifest.layers.iter().zip(config.diff_ids());
        let planned = layers.map(|(layer, diff_id)| {
            let whole = self.store.blob_size(&layer.digest) == Some(layer.size);
            PlannedLayer {
                digest: layer.digest.clone(),
                size: layer.size,
                present: self.store.has_layer(diff_id) && (whole || !keep),
                kept: if whole {
                    layer.size
                } else {
                    self.store.spooled(&layer.digest)
                },
            }
        });
        Ok(Plan {
            id: found.manifest.config.digest.clone(),
            manifest: found.digest.clone(),
            layers: planned.collect(),
        })
    }

    /// Whether compressed layers of this image stay: whoever pulls said so, or somebody did before.
    fn keeps(&self, manifest: &Manifest) -> bool {
        let known = self.store.image(&manifest.config.digest);
        self.keep_blobs || known.is_some_and(|image| !image.blobs.is_empty())
    }

    /// Unpacks again what an image lacks of its layers, as far as their compressed bytes are kept. Asks nobody.
    pub(crate) async fn restore(self, image: ImageRecord) -> Result<(), Failure> {
        let refuse = |detail: &str| {
            let detail = format!("image {} cannot be unpacked again: {detail}", image.id);
            Failure::new(Cause::ContentStoreCorrupt, Step::Unpack, detail)
        };
        let (store, digest) = (self.store.clone(), image.manifest.clone());
        let most = towline_oci::MAX_DOCUMENT_BYTES as u64;
        let bytes = task::blocking("manifest", move || store.read_blob(&digest, most)).await;
        let bytes = bytes.ok().flatten();
        let bytes = bytes.filter(|bytes| is(&image.manifest, bytes));
        let bytes = bytes.ok_or_else(|| refuse("its manifest is not here"))?;
        let manifest = Manifest::read(&bytes).ok_or_else(|| refuse("its manifest is none"))?;
        let config = ImageConfig::parse(image.config.as_bytes());
        let config = config.map_err(|error| refuse("its config is none").because(error))?;
        check::manifest(&image.manifest, &manifest, &self.ceilings)?;
        check::config(&config, &manifest, &config.platform)?;
        let lease = self.store.lease();
        for digest in config.diff_ids() {
            lease.hold(digest);
        }
        for layer in &manifest.layers {
            lease.hold(&layer.digest);
        }
        let how = How {
            keep: false,
            offline: true,
        };
        self.layers(&manifest, &config, how).await?;
        let (store, id) = (self.store.clone(), image.id.clone());
        // The record has the config too.
        let kept = task::blocking("config", move || {
            store.put_blob(&id, image.config.as_bytes())
        });
        kept.await.map_err(|error| {
            let detail = "the image's config cannot be written".to_owned();
            error.into_failure(Step::Commit, detail)
        })
    }

    /// Runs the pull to its end.
    pub(crate) async fn run(self) -> Result<Image, Failure> {
        let resolved = self.or_cancel(Box::pin(self.repository.resolve())).await?;
        let named = resolved.digest.clone();
        self.warn(resolved.warnings());
        let found = self.choose(resolved).await?;
        check::manifest(&found.digest, &found.manifest, &self.ceilings)?;
        let lease = self.store.lease();
        lease.hold(&found.digest);
        lease.hold(&found.manifest.config.digest);
        if !self.store.has_blob(&found.manifest.config.digest) {
            // Nothing is known of this image, so that its layers are asked for as soon as its config is here.
            let connections = first(&found.manifest.layers, self.max_concurrent_layers);
            self.repository.open_ahead(connections);
        }
        let (config, config_text) = self.config(&found.manifest.config).await?;
        check::config(&config, &found.manifest, &self.platform)?;
        for diff_id in config.diff_ids() {
            lease.hold(diff_id);
        }
        for layer in &found.manifest.layers {
            // What an earlier attempt left of it.
            lease.hold(&layer.digest);
        }
        let documents = self.keep_documents(&found, &config_text);
        let how = How {
            keep: self.keeps(&found.manifest),
            offline: false,
        };
        let layers = match self.layers(&found.manifest, &config, how).await {
            Ok(()) => Ok(()),
            Err(failure) => match self.make_room(&found.manifest, failure).await {
                Ok(()) => self.layers(&found.manifest, &config, how).await,
                Err(failure) => Err(failure),
            },
        };
        // What it could not do is done again with the record, which fails with that.
        documents.await.ok();
        layers?;
        self.record(found, named, config_text, (how.keep, lease))
            .await
    }

    /// Passes on what the registry wants people to be told.
    fn warn(&self, warnings: Vec<String>) {
        for warning in &warnings {
            tracing::warn!(image = %self.image, warning, "the registry warns");
        }
        if !warnings.is_empty() {
            self.progress
                .send_modify(|progress| progress.warnings = warnings);
        }
    }

    /// The manifest for the platform.
    async fn choose(&self, resolved: Resolved) -> Result<Found, Failure> {
        let index = match resolved.document {
            Document::Manifest(manifest) => {
                return Ok(Found {
                    digest: resolved.digest,
                    bytes: resolved.bytes,
                    manifest,
                });
            }
            Document::Index(index) => index,
        };
        let chosen = select_platform(&index, &self.platform)?;
        let resolved = self
            .or_cancel(Box::pin(self.repository.manifest(&chosen.digest)))
            .await?;
        if chosen.size != 0 && chosen.size != resolved.bytes.len() as u64 {
            return Err(Failure::new(
                Cause::DigestMismatch,
                Step::Verify,
                format!(
                    "the index says that manifest {} has {} bytes, it has {}",
                    chosen.digest,
                    chosen.size,
                    resolved.bytes.len()
                ),
            ));
        }
        match resolved.document {
            Document::Manifest(manifest) => Ok(Found {
                digest: resolved.digest,
                bytes: resolved.bytes,
                manifest,
            }),
            Document::Index(_) => Err(Failure::new(
                Cause::NotAnImage,
                Step::Platform,
                format!(
                    "the index leads to another index, {}, and not to an image",
                    chosen.digest
                ),
            )),
        }
    }

    /// The image config, from the store where it has it.
    async fn config(&self, descriptor: &Descriptor) -> Result<(ImageConfig, String), Failure> {
        let (store, digest) = (self.store.clone(), descriptor.digest.clone());
        let here = task::blocking("config", move || store.read_blob(&digest, MAX_CONFIG))
            .await
            .ok()
            .flatten()
            .filter(|bytes| is(&descriptor.digest, bytes));
        let bytes = match here {
            Some(bytes) => bytes,
            None => self
                .or_cancel(Box::pin(self.repository.blob_bytes(descriptor, MAX_CONFIG)))
                .await?
                .to_vec(),
        };
        let refuse = |why: towline_cause::BoxError| {
            let detail = format!("the image config {} cannot be read", descriptor.digest);
            Failure::new(Cause::NotAnImage, Step::Resolve, detail).because(why)
        };
        let config = ImageConfig::parse(&bytes).map_err(|error| refuse(error.into()))?;
        let text = String::from_utf8(bytes).map_err(|error| refuse(error.into()))?;
        Ok((config, text))
    }

    /// Gets every layer, several at a time. The first failure stops the others; all have ended when this returns.
    async fn layers(
        &self,
        manifest: &Manifest,
        config: &ImageConfig,
        how: How,
    ) -> Result<(), Failure> {
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Layers;
            progress.layers = manifest.layers.iter().map(waiting).collect();
        });
        let fetch = Fetch {
            store: self.store.clone(),
            locks: Arc::clone(&self.locks),
            repository: self.repository.clone(),
            ceilings: self.ceilings,
            rights: self.rights,
            how,
            helpers: self.helpers.clone(),
            progress: self.progress.clone(),
            stop: self.cancel.child_token(),
            settling: Settling::default(),
            limiter: self.limiter.clone(),
            connections: self.connections_per_layer,
            spare: Arc::new(Semaphore::new(SPARE)),
            slots: Arc::new(Slots::new(self.max_concurrent_layers)),
        };
        let fetch = Arc::new(fetch);
        let most = shares(self.max_concurrent_layers);
        let room = Semaphore::new(most);
        // One helper for all layers.
        let _hold = self.helpers.as_ref().map(Helpers::hold);
        let layers: Vec<_> = manifest
            .layers
            .iter()
            .cloned()
            .zip(config.diff_ids().iter().cloned())
            .collect();
        let work = layers
            .into_iter()
            .enumerate()
            .map(|(index, (layer, diff_id))| {
                let (fetch, room) = (Arc::clone(&fetch), &room);
                async move {
                    // In their order: a large layer is not passed by. It is never closed.
                    let _room = room.acquire_many(share(layer.size)).await;
                    fetch.slots.keep_up().await;
                    fetch.layer(index, &layer, &diff_id).await
                }
            });
        let mut running = futures::stream::iter(work).buffer_unordered(most);
        let mut first = None;
        while let Some(done) = running.next().await {
            if let Err(failure) = done
                && first.is_none()
            {
                fetch.stop.cancel();
                first = Some(failure);
            }
        }
        if first.is_none() {
            self.progress
                .send_modify(|progress| progress.phase = Phase::Committing);
        }
        // Also when the pull fails: what is whole now has no spool any more for the next attempt.
        let settled = fetch.settling.end(&self.store).await;
        first.map_or(settled, |failure| Err(self.with_kept(failure)))
    }

    /// Adds to a failure what it leaves for the next attempt.
    fn with_kept(&self, failure: Failure) -> Failure {
        // Wrong bytes are not kept, and who gave up is told already.
        let told = matches!(
            failure.cause(),
            Cause::DigestMismatch | Cause::DeadlineExceeded
        );
        let coming = matches!(
            failure.step(),
            Step::Dns | Step::Connect | Step::Tls | Step::Authenticate | Step::Fetch
        );
        let (bytes, total) = self.progress.borrow().bytes();
        if told || !coming || bytes == 0 {
            return failure;
        }
        failure.adding(&format!(
            "; {bytes} of {total} bytes are kept, the next pull goes on there"
        ))
    }

    /// Puts manifest and config into the store beside the layers, so that nobody waits for the disk for their sake at the end.
    fn keep_documents(&self, found: &Found, config: &str) -> JoinHandle<()> {
        let (store, id) = (self.store.clone(), found.manifest.config.digest.clone());
        let (digest, bytes) = (found.digest.clone(), found.bytes.clone());
        let config = config.to_owned();
        let work = task::blocking("documents", move || {
            let kept = store
                .put_blob(&id, config.as_bytes())
                .and_then(|()| store.put_blob(&digest, &bytes));
            if let Err(error) = kept {
                tracing::debug!(%error, "manifest and config cannot be kept yet");
            }
        });
        task::spawn("documents", work)
    }

    /// Where the disk is full, removes what cut pulls of other images left there. The failure stands where it is another one, or where nothing
    /// was left.
    async fn make_room(&self, manifest: &Manifest, failure: Failure) -> Result<(), Failure> {
        if failure.cause() != Cause::NoSpaceLeft {
            return Err(failure);
        }
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        let enough = sizes
            .fold(0, u64::saturating_add)
            .saturating_mul(UNPACKED + 1);
        let store = self.store.clone();
        let freed = task::blocking("free-spools", move || {
            store.free_spools(Timestamp::now(), Duration::ZERO, enough)
        });
        match freed.await {
            Ok(0) => Err(failure),
            Ok(freed) => {
                let image = self.image.to_string();
                tracing::warn!(
                    image,
                    freed,
                    "the disk is full; interrupted downloads of other images are removed, and this one goes on"
                );
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the disk is full, and interrupted downloads cannot be removed");
                Err(failure)
            }
        }
    }

    /// Puts manifest and config into the store and writes the record that gives the image its names.
    async fn record(
        &self,
        found: Found,
        named: Digest,
        config: String,
        (keep, lease): (bool, Lease),
    ) -> Result<Image, Failure> {
        let image = self.image.clone();
        let store = self.store.clone();
        task::blocking("record", move || {
            let image_name = image.to_string();
            let recorded = write_record(&store, &image, &found, &named, config, keep);
            drop(lease);
            recorded.map_err(|error| {
                error.into_failure(
                    Step::Commit,
                    format!("image {image_name} cannot be recorded"),
                )
            })
        })
        .await
    }

    async fn or_cancel<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(given_up(Step::Resolve, 0, 0)),
            done = work => done,
        }
    }
}

fn is(digest: &Digest, bytes: &[u8]) -> bool {
    let mut verifier = digest.verifier();
    verifier.update(bytes);
    verifier.finish() == *digest
}

fn waiting(layer: &Descriptor) -> LayerProgress {
    LayerProgress {
        digest: layer.digest.clone(),
        phase: LayerPhase::Waiting,
        bytes: 0,
        total: layer.size,
        present: false,
    }
}

fn write_record(
    store: &Store,
    image: &Reference,
    found: &Found,
    named: &Digest,
    config: String,
    keep: bool,
) -> Result<Image, StoreError> {
    let id = found.manifest.config.digest.clone();
    store.put_blob(&id, config.as_bytes())?;
    store.put_blob(&found.digest, &found.bytes)?;
    let parsed = ImageConfig::parse(config.as_bytes()).ok();
    let now = Timestamp::now();
    let layers = found.manifest.layers.iter().map(|layer| layer.size);
    let size = layers.fold(found.bytes.len() as u64, u64::saturating_add);
    let mut record = store.image(&id).unwrap_or_else(|| ImageRecord {
        id: id.clone(),
        manifest: found.digest.clone(),
        config,
        names: Vec::new(),
        repo_digests: Vec::new(),
        sources: Vec::new(),
        diff_ids: parsed
            .map(|config| config.diff_ids().to_vec())
            .unwrap_or_default(),
        blobs: Vec::new(),
        size: size.saturating_add(found.manifest.config.size),
        pinned: false,
        created: now,
        last_used: now,
    });
    record.last_used = now;
    if keep {
        let layers = found.manifest.layers.iter();
        record.blobs = layers.map(|layer| layer.digest.clone()).collect();
    }
    // A reference with a digest names no tag of the image: what the tag points to was not asked.
    if image.digest().is_none() {
        record.names.push(image.to_string());
    }
    record
        .repo_digests
        .push(image.with_digest(named.clone()).to_string());
    record
        .sources
        .push(image.with_digest(found.digest.clone()).to_string());
    let id = record.id.clone();
    store.record(record)?;
    let record = store.image(&id).ok_or(StoreError::NoImage(id))?;
    Image::of(store, &record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_layers_come_in_the_place_of_a_large_one() {
        let layers = |sizes: &[u64]| -> Vec<Descriptor> {
            let layer = |mib: &u64| Descriptor::new("application/x", Digest::of(b""), mib << 20);
            sizes.iter().map(layer).collect()
        };
        assert_eq!(first(&layers(&[1; 60]), 3), 12);
        assert_eq!(first(&layers(&[1; 5]), 3), 5);
        assert_eq!(first(&layers(&[100; 60]), 3), 3);
        assert_eq!(first(&layers(&[100, 1, 1, 8, 100, 1]), 3), 5);
        assert_eq!(first(&layers(&[8; 60]), 0), 2);
    }
}
