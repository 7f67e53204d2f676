//! One layer in one pass: network bytes into the spool and the digest, then the decompressor, the diffID, and the staging directory.
//!
//! Two threads here: the first spools what arrives and waits for no other, so that a slow disk never slows the network and a kill loses little;
//! the second hashes it and lets the unpacker have it ([`crate::unpacker`]), which decompresses, hashes that and makes the files on three
//! more, so that two processors are used within one layer too. The second goes on when the unpacker fails on the bytes, because only the
//! digest of them all says whether the download or the image is at fault.
//!
//! More layers may come than are unpacked at the same time: those are spooled and wait for their turn with the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use bytes::Bytes;
use jiff::Timestamp;
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest};
use towline_store::{LayerInfo, Spool, Store, StoreError};

use crate::Ceilings;
use crate::download::Piece;
use crate::helper::Helpers;
use crate::slots::Slots;
use crate::unpack::{Rights, UnpackError, joined};
use crate::unpacker::{Flusher, Flushing, Made, Unpacker};

/// Pieces between receiver and hash, at most. A piece has at most [`PIECE`] bytes or what the network gave at once.
const WAITING: usize = 4;
const PIECE: usize = 1 << 17;

/// What is to be made of a layer's bytes.
pub(crate) struct Job {
    pub(crate) store: Store,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) ceilings: Ceilings,
    pub(crate) rights: Rights,
    /// Whose turn it is to be unpacked.
    pub(crate) slots: Arc<Slots>,
    /// Number in the image.
    pub(crate) index: usize,
    /// Who unpacks; `None` for threads of this process.
    pub(crate) helpers: Option<Arc<Helpers>>,
    /// The compressed bytes stay in the store.
    pub(crate) keep: bool,
    /// The layer is not here yet.
    pub(crate) unpack: bool,
}

/// How a pass ended.
#[derive(Debug)]
pub(crate) enum Pass {
    /// The layer is in the store.
    Done,
    /// The sender went away before all bytes were there; the spool keeps them.
    Stopped,
    /// The bytes are wrong, but some are from an earlier attempt: the spool is empty now and another pass decides.
    Stale,
}

/// Starts a thread that ends before the pass does.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Failure> {
    let started = Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work);
    started.map_err(|error| {
        let cause = towline_store::io_cause(&error).unwrap_or(Cause::Unknown);
        Failure::new(cause, Step::Unpack, "no thread can be started").because(error)
    })
}

impl Job {
    /// Runs a pass over what the spool has and what then arrives. Blocks. `progress` is told how many bytes are here.
    pub(crate) fn run(
        &self,
        spool: Spool,
        arriving: tokio::sync::mpsc::Receiver<Piece>,
        progress: &dyn Fn(u64),
    ) -> Result<Pass, Failure> {
        if !self.unpack {
            return self.keep_only(spool, arriving, progress);
        }
        let kept = spool.len();
        let spool = Mutex::new(spool);
        let short = AtomicBool::new(false);
        let received = std::thread::scope(|scope| -> Result<_, Failure> {
            let (queue, queued) = sync_channel(WAITING);
            let (spool, short) = (&spool, &short);
            let unpacking = start(scope, "hash", move || {
                let _slot = self.slots.wait(self.index);
                // While it waited for its turn the pull may have ended.
                if short.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                self.begin(scope)?.run(&queued, spool)
            })?;
            let kept = self.keep(spool, arriving, queue, progress);
            match kept {
                Ok(true) => self.slots.whole(self.index),
                _ => short.store(true, Ordering::Relaxed),
            }
            let unpacked = joined(unpacking);
            kept.and(unpacked)
        })?;
        let spool = spool.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some((digest, made)) = received else {
            return Ok(Pass::Stopped);
        };
        if digest != self.descriptor.digest {
            return self.mismatch(spool, kept, &digest);
        }
        let (staged, extracted, actual) = made.map_err(|error| self.unpack_failed(error))?;
        if !extracted.listed {
            staged
                .unlist()
                .map_err(|error| self.failed(error, Step::Unpack, "cannot be staged"))?;
        }
        if extracted.left_out > 0 {
            let layer = &self.descriptor.digest;
            tracing::warn!(%layer, devices = extracted.left_out, "devices are left out: only root of the machine makes them");
        }
        let info = LayerInfo {
            size: extracted.size,
            entries: extracted.entries,
            opaque_root: extracted.opaque_root,
            created: Timestamp::now(),
        };
        staged
            .seal(&actual, &info)
            .map_err(|error| self.failed(error, Step::Commit, "cannot be put into the store"))?;
        if self.keep {
            self.keep_blob(spool)?;
        } else if let Err(error) = spool.discard() {
            // It goes before the sync that makes the layer durable, which would write these bytes too.
            tracing::warn!(%error, "a spool that is not needed any more stays until it is old");
        }
        Ok(Pass::Done)
    }

    /// For a layer that is here, and whose compressed bytes are not.
    fn keep_only(
        &self,
        spool: Spool,
        arriving: tokio::sync::mpsc::Receiver<Piece>,
        progress: &dyn Fn(u64),
    ) -> Result<Pass, Failure> {
        let kept = spool.len();
        let spool = Mutex::new(spool);
        // Nobody reads along: they are hashed when all are here.
        let (queue, _full) = sync_channel(0);
        if !self.keep(&spool, arriving, queue, progress)? {
            return Ok(Pass::Stopped);
        }
        let mut spool = spool.into_inner().unwrap_or_else(PoisonError::into_inner);
        let digest = self
            .hash(&mut spool)
            .map_err(|error| self.failed(error, Step::Verify, "cannot be read again"))?;
        if digest != self.descriptor.digest {
            return self.mismatch(spool, kept, &digest);
        }
        self.keep_blob(spool)?;
        Ok(Pass::Done)
    }

    fn hash(&self, spool: &mut Spool) -> Result<Digest, StoreError> {
        let mut verifier = self.descriptor.digest.verifier();
        let (mut at, mut piece) = (0, vec![0; PIECE]);
        loop {
            match spool.read_at(at, &mut piece)? {
                0 => return Ok(verifier.finish()),
                read => {
                    verifier.update(&piece[..read]);
                    at += read as u64;
                }
            }
        }
    }

    fn keep_blob(&self, spool: Spool) -> Result<(), Failure> {
        spool
            .keep()
            .map_err(|error| self.failed(error, Step::Commit, "cannot be kept compressed"))
    }

    /// Starts who works behind the spool.
    fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Hashing<'scope>, Failure> {
        let staged = self
            .store
            .begin_layer(&self.diff_id)
            .map_err(|error| self.failed(error, Step::Unpack, "cannot be staged"))?;
        let (flusher, flushing) = Flusher::start(self, scope)?.unzip();
        Ok(Hashing {
            job: self,
            verifier: self.descriptor.digest.verifier(),
            len: 0,
            unpacker: Some(Unpacker::start(self, scope, staged, flusher)?),
            made: None,
            flushing,
        })
    }

    /// Puts what arrives into the spool as fast as it comes, and into the queue where that has room. Whether all bytes are here.
    fn keep(
        &self,
        spool: &Mutex<Spool>,
        mut arriving: tokio::sync::mpsc::Receiver<Piece>,
        queue: SyncSender<Piece>,
        progress: &dyn Fn(u64),
    ) -> Result<bool, Failure> {
        let mut here = spool.lock().unwrap_or_else(PoisonError::into_inner).len();
        progress(here);
        while here < self.descriptor.size {
            let Some(piece) = arriving.blocking_recv() else {
                break;
            };
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            spool
                .write(piece.at, &piece.bytes)
                .map_err(|error| self.failed(error, Step::Fetch, "cannot be kept"))?;
            drop(spool);
            here += piece.bytes.len() as u64;
            progress(here);
            // Whoever is behind reads the spool.
            if let Err(TrySendError::Disconnected(_)) = queue.try_send(piece) {
                break;
            }
        }
        drop(queue);
        Ok(here >= self.descriptor.size)
    }

    /// The whole download has another digest. Where a part of it is from an earlier attempt, that part may be to blame.
    fn mismatch(&self, mut spool: Spool, kept: u64, actual: &Digest) -> Result<Pass, Failure> {
        let expected = self.descriptor.digest.clone();
        let dropped = spool.restart();
        if kept > 0 {
            dropped
                .map_err(|error| self.failed(error, Step::Fetch, "cannot be downloaded again"))?;
            tracing::warn!(layer = %expected, kept, "bytes of an earlier attempt are stale; downloading again");
            return Ok(Pass::Stale);
        }
        let detail = format!(
            "layer {expected}: the {} bytes that came hash to {actual}",
            self.descriptor.size
        );
        Err(Failure::new(Cause::DigestMismatch, Step::Verify, detail))
    }

    pub(crate) fn unpack_failed(&self, error: UnpackError) -> Failure {
        let detail = format!("layer {} cannot be unpacked", self.descriptor.digest);
        Failure::new(
            error.cause(),
            Step::Unpack,
            self.explain(error.cause(), detail),
        )
        .because(error)
    }

    /// A failure of the store while it worked on this layer.
    pub(crate) fn failed(&self, error: StoreError, step: Step, what: &str) -> Failure {
        let detail = format!("layer {} {what}", self.descriptor.digest);
        let detail = self.explain(error.cause(), detail);
        error.into_failure(step, detail)
    }

    /// Names the disk where the disk is the cause.
    fn explain(&self, cause: Cause, detail: String) -> String {
        let root = self.store.root().display();
        match cause {
            Cause::NoSpaceLeft => {
                let free = towline_sys::fs::free_space(self.store.root()).unwrap_or_default();
                format!("{detail}: the file system of {root} is full ({free} bytes free)")
            }
            Cause::FilesystemReadOnly => {
                format!("{detail}: the file system of {root} is read-only")
            }
            Cause::DiskError => format!("{detail}: the disk of {root} has errors"),
            _ => detail,
        }
    }
}

/// The half that hashes what came.
struct Hashing<'scope> {
    job: &'scope Job,
    verifier: towline_oci::Verifier,
    len: u64,
    unpacker: Option<Unpacker<'scope>>,
    made: Option<Made>,
    flushing: Option<Flushing<'scope>>,
}

impl Hashing<'_> {
    fn run(
        mut self,
        queued: &Receiver<Piece>,
        spool: &Mutex<Spool>,
    ) -> Result<Option<(Digest, Made)>, Failure> {
        let whole = self.feed(queued, spool)?;
        self.finish(whole)
    }

    /// Takes in everything, in order: what is in the queue, and from the spool what is not or came before its turn. False where the sender
    /// went away too early.
    fn feed(&mut self, queued: &Receiver<Piece>, spool: &Mutex<Spool>) -> Result<bool, Failure> {
        let mut open = true;
        while self.len < self.job.descriptor.size {
            match queued.try_recv() {
                Ok(piece) if piece.at == self.len => {
                    self.take(piece.bytes, spool)?;
                    continue;
                }
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => open = false,
            }
            if let Some(piece) = self.next_kept(spool)? {
                self.take(piece, spool)?;
                continue;
            }
            if !open {
                return Ok(false);
            }
            if let Some(unpacker) = &mut self.unpacker {
                unpacker.push();
            }
            // Whatever is written to the spool from here on is in the queue too, which is empty.
            match queued.recv() {
                Ok(piece) if piece.at == self.len => self.take(piece.bytes, spool)?,
                Ok(_) => {}
                Err(_) => open = false,
            }
        }
        Ok(true)
    }

    /// What the spool has of the bytes whose turn it is.
    fn next_kept(&self, spool: &Mutex<Spool>) -> Result<Option<Bytes>, Failure> {
        let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        if !spool.has(self.len) {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE];
        let read = spool
            .read_at(self.len, &mut piece)
            .map_err(|error| self.job.failed(error, Step::Fetch, "cannot be resumed"))?;
        piece.truncate(read);
        Ok((read > 0).then(|| Bytes::from(piece)))
    }

    fn take(&mut self, piece: Bytes, spool: &Mutex<Spool>) -> Result<(), Failure> {
        self.verifier.update(&piece);
        let at = self.len;
        self.len += piece.len() as u64;
        let Some(unpacker) = &mut self.unpacker else {
            return Ok(());
        };
        let given = unpacker.give(at, piece, spool);
        if given.map_err(|error| self.job.failed(error, Step::Fetch, "cannot be resumed"))? {
            return Ok(());
        }
        match self.join() {
            // The disk or a ceiling: no further byte changes that.
            Err(error) if !error.blames_bytes() => Err(self.job.unpack_failed(error)),
            other => {
                self.made = Some(other);
                Ok(())
            }
        }
    }

    fn join(&mut self) -> Made {
        let unpacker = self.unpacker.take();
        unpacker.map_or(Err(UnpackError::Stopped), Unpacker::join)
    }

    /// The digest of all bytes, and what the unpacker made of them. `None` where they are not all here.
    fn finish(mut self, whole: bool) -> Result<Option<(Digest, Made)>, Failure> {
        let made = match self.made.take() {
            Some(made) => made,
            None => self.join(),
        };
        if let Some(flushing) = self.flushing.take() {
            joined(flushing)
                .map_err(|error| self.job.failed(error, Step::Commit, "cannot be written"))?;
        }
        if !whole {
            return Ok(None);
        }
        match made {
            Err(error) if !error.blames_bytes() => Err(self.job.unpack_failed(error)),
            made => Ok(Some((self.verifier.finish(), made))),
        }
    }
}
