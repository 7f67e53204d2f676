//! One layer: looked for, downloaded, handed to the threads that unpack it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Repository;
use towline_oci::{Descriptor, Digest};
use towline_store::{Spool, Store};
use towline_sys::task::{self, CancellationToken};

use crate::download::{Download, From};
use crate::failure::given_up;
use crate::helper::Helpers;
use crate::keyed::Locks;
use crate::limiter::Limiter;
use crate::pull::How;
use crate::receive::{Job, Pass};
use crate::slots::Slots;
use crate::unpack::Rights;
use crate::{Ceilings, LayerPhase, LayerProgress, Progress};

/// Pieces between the network and the receiver, at most.
const WAITING: usize = 4;
/// Progress is told each time this many bytes more are here.
const REPORT: u64 = 256 << 10;

/// Whole layers are made durable along with the rest of the pull when together they have so many bytes; the last at its end.
const SETTLE: u64 = 64 << 20;

/// What the layers of one pull share.
pub(crate) struct Fetch {
    pub(crate) store: Store,
    pub(crate) locks: Arc<Locks>,
    pub(crate) repository: Repository,
    pub(crate) ceilings: Ceilings,
    pub(crate) rights: Rights,
    pub(crate) how: How,
    pub(crate) helpers: Option<Arc<Helpers>>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stop: CancellationToken,
    pub(crate) settling: Settling,
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// The most connections of one layer.
    pub(crate) connections: usize,
    /// Connections besides each layer's first.
    pub(crate) spare: Arc<Semaphore>,
    /// Layers that are unpacked at the same time.
    pub(crate) slots: Arc<Slots>,
}

/// The sync that runs beside the layers, if one does.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<Option<JoinHandle<()>>>);

impl Settling {
    /// Begins to make layers durable, unless there is little to do or a sync runs.
    fn begin(&self, store: &Store) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = running.as_ref().is_some_and(|task| !task.is_finished());
        if busy || store.unsettled() < SETTLE {
            return;
        }
        let store = store.clone();
        let work = task::blocking("settle", move || {
            // The store forgets the layers that it could not write: the pull ends with that.
            if let Err(error) = store.settle() {
                tracing::warn!(%error, "layers cannot be made durable");
            }
        });
        *running = Some(task::spawn("settle", work));
    }

    /// Makes every layer durable.
    pub(crate) async fn end(&self, store: &Store) -> Result<(), Failure> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // Whatever it could not do is done again here.
            running.await.ok();
        }
        let store = store.clone();
        task::blocking("settle", move || store.settle())
            .await
            .map_err(|error| {
                let detail = "the unpacked layers cannot be made durable".to_owned();
                error.into_failure(Step::Commit, detail)
            })
    }
}

impl Fetch {
    /// Whether the compressed bytes of a layer are in the store to stay.
    fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.store.blob_size(&descriptor.digest) == Some(descriptor.size)
    }

    /// Gets one layer into the store, unless it is there; its compressed bytes too, where they are to be kept.
    pub(crate) async fn layer(
        &self,
        index: usize,
        descriptor: &Descriptor,
        diff_id: &Digest,
    ) -> Result<(), Failure> {
        // Another pull may be at the same layer: by the blob it would write the same spool, by the diffID make the same directory. Taken in
        // one order, so that no manifest can make two layers wait for each other.
        let (low, high) = if descriptor.digest <= *diff_id {
            (&descriptor.digest, diff_id)
        } else {
            (diff_id, &descriptor.digest)
        };
        let first = self.or_stop(self.locks.lock(low)).await?;
        let second = if low == high {
            None
        } else {
            Some(self.or_stop(self.locks.lock(high)).await?)
        };
        let here = self.store.has_layer(diff_id);
        if here && (!self.how.keep || self.has_blob(descriptor)) {
            self.report(index, |layer| {
                layer.phase = LayerPhase::Done;
                layer.bytes = layer.total;
                layer.present = true;
            });
            return Ok(());
        }
        let guards = Arc::new((first, second));
        loop {
            let job = Arc::new(Job {
                store: self.store.clone(),
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                ceilings: self.ceilings,
                rights: self.rights,
                slots: Arc::clone(&self.slots),
                index,
                helpers: self.helpers.clone(),
                keep: self.how.keep,
                unpack: !here,
            });
            let passed = match self.pass(index, job, Arc::clone(&guards)).await {
                // Wrong bytes of one endpoint say nothing of another; they were dropped, and whoever sent them comes last now.
                Err(failure)
                    if failure.cause() == Cause::DigestMismatch
                        && self.repository.distrust(&descriptor.digest) =>
                {
                    continue;
                }
                passed => passed?,
            };
            match passed {
                Pass::Done => break,
                Pass::Stopped => return Err(self.gave_up()),
                Pass::Stale => {}
            }
        }
        self.settling.begin(&self.store);
        self.report(index, |layer| {
            layer.phase = LayerPhase::Done;
            layer.bytes = layer.total;
        });
        Ok(())
    }

    async fn pass<G: Send + 'static>(
        &self,
        index: usize,
        job: Arc<Job>,
        guards: G,
    ) -> Result<Pass, Failure> {
        let spool = self.open_spool(&job).await?;
        let kept = spool.len();
        if self.how.offline && !spool.missing().is_empty() {
            let detail = format!("the bytes of layer {} are not here", job.descriptor.digest);
            return Err(Failure::new(
                Cause::ContentStoreCorrupt,
                Step::Fetch,
                detail,
            ));
        }
        self.report(index, |layer| {
            layer.phase = LayerPhase::Downloading;
            layer.bytes = kept;
        });
        let from = From {
            repository: &self.repository,
            descriptor: &job.descriptor.clone(),
            limiter: self.limiter.as_deref(),
            connections: self.connections,
            spare: &self.spare,
        };
        let opening = Box::pin(Download::open(from, spool.missing()));
        let download = self.or_stop(opening).await??;
        let (sender, receiver) = mpsc::channel(WAITING);
        let progress = self.progress.clone();
        let size = job.descriptor.size;
        let work = move || {
            // Kept until the threads are done, so that nobody else begins the same layer before.
            let _guards = guards;
            let told = std::sync::atomic::AtomicU64::new(kept);
            job.run(spool, receiver, &|bytes| {
                let before = told.load(std::sync::atomic::Ordering::Relaxed);
                if bytes >= size || bytes >= before + REPORT {
                    told.store(bytes, std::sync::atomic::Ordering::Relaxed);
                    change(&progress, index, |layer| {
                        layer.bytes = bytes;
                        if bytes >= size {
                            layer.phase = LayerPhase::Unpacking;
                        }
                    });
                }
            })
        };
        let unpacking = task::spawn("layer", task::blocking("layer", work));
        let brought = if let Some(download) = download {
            let running = Box::pin(download.run(sender));
            self.or_stop(running).await.and_then(|brought| brought)
        } else {
            drop(sender);
            Ok(())
        };
        let passed = match unpacking.await {
            Ok(passed) => passed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match (passed, brought) {
            // The download is why it stopped.
            (Ok(Pass::Stopped), Err(failure)) => Err(failure),
            (passed, _) => passed,
        }
    }

    async fn open_spool(&self, job: &Arc<Job>) -> Result<Spool, Failure> {
        let job = Arc::clone(job);
        task::blocking("spool", move || {
            job.store
                .spool(&job.descriptor.digest, job.descriptor.size)
                .map_err(|error| job.failed(error, Step::Fetch, "cannot be kept"))
        })
        .await
    }

    /// Waits, but not longer than the pull lives.
    async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.gave_up()),
            done = work => Ok(done),
        }
    }

    fn gave_up(&self) -> Failure {
        let (bytes, total) = self.progress.borrow().bytes();
        given_up(Step::Fetch, bytes, total)
    }

    fn report(&self, index: usize, set: impl FnOnce(&mut LayerProgress)) {
        change(&self.progress, index, set);
    }
}

fn change(progress: &watch::Sender<Progress>, index: usize, set: impl FnOnce(&mut LayerProgress)) {
    progress.send_modify(|progress| {
        if let Some(layer) = progress.layers.get_mut(index) {
            set(layer);
        }
    });
}
