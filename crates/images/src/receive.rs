//! One layer in one pass: network bytes into the spool and the digest, then the decompressor, the diffID, and the staging directory.
//!
//! Four threads, so that two processors are used within one layer too: the first spools what arrives and waits for no other, so that a slow
//! disk never slows the network and a kill loses little; the second hashes it, the third decompresses and hashes that, the fourth makes the
//! files. The second goes on when a later one fails on the bytes, because only the digest of them all says whether the download or the
//! image is at fault.
//!
//! More layers may come than are unpacked at the same time: those are spooled and wait for their turn with the rest.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest};
use towline_store::{LayerInfo, Spool, StagedLayer, Store, StoreError};

use crate::Ceilings;
use crate::download::Piece;
use crate::slots::Slots;
use crate::unpack::{Extracted, Rights, Source, UnpackError, decompress, extract, pipe};

/// Pieces between receiver and decompressor, at most. A piece has at most [`PIECE`] bytes or what the network gave at once.
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

/// A layer of at least so many compressed bytes is written to the disk while it comes, each time that so many more were unpacked: the sync at
/// its end then has little left to do.
const FLUSH: u64 = 32 << 20;

type Unpacked = Result<(StagedLayer, Extracted, Digest), UnpackError>;

/// The threads that make files of the bytes.
struct Unpacker<'scope> {
    decompress: ScopedJoinHandle<'scope, Result<(), UnpackError>>,
    digest: ScopedJoinHandle<'scope, Digest>,
    extract: ScopedJoinHandle<'scope, Result<(StagedLayer, Extracted), UnpackError>>,
}

impl Unpacker<'_> {
    fn join(self) -> Unpacked {
        let extracted = joined(self.extract);
        let decompressed = joined(self.decompress);
        let digest = joined(self.digest);
        // What stopped the decompressor is told by the other, who was given it or caused it.
        let (staged, extracted) = extracted?;
        decompressed?;
        Ok((staged, extracted, digest))
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn start<'scope, T: Send + 'scope>(
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
        let Some((digest, unpacked)) = received else {
            return Ok(Pass::Stopped);
        };
        if digest != self.descriptor.digest {
            return self.mismatch(spool, kept, &digest);
        }
        let (staged, extracted, actual) = unpacked.map_err(|error| self.unpack_failed(error))?;
        let info = LayerInfo {
            size: extracted.size,
            entries: extracted.entries,
            opaque_root: extracted.opaque_root,
            created: Timestamp::now(),
        };
        staged
            .seal(&actual, &info)
            .map_err(|error| self.failed(error, Step::Commit, "cannot be put into the store"))?;
        // Before the sync that makes the layer durable, which would write these bytes too.
        if let Err(error) = spool.discard() {
            tracing::warn!(%error, "a spool that is not needed any more stays until it is old");
        }
        Ok(Pass::Done)
    }

    /// Starts the threads behind the spool.
    fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Hashing<'scope, 'scope>, Failure> {
        let (sender, receiver) = sync_channel(WAITING);
        let staged = self
            .store
            .begin_layer(&self.diff_id)
            .map_err(|error| self.failed(error, Step::Unpack, "cannot be staged"))?;
        let unpacker = self.start_unpacker(scope, receiver, staged)?;
        Ok(Hashing {
            job: self,
            verifier: self.descriptor.digest.verifier(),
            len: 0,
            pipe: Some(sender),
            unpacker: Some(unpacker),
            unpacked: None,
            flusher: self.start_flusher(scope)?,
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

    fn start_unpacker<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        receiver: Receiver<Bytes>,
        staged: StagedLayer,
    ) -> Result<Unpacker<'scope>, Failure> {
        let (source, mut blocks, copies) = pipe();
        let listing = staged
            .listing()
            .map_err(|error| self.failed(error, Step::Unpack, "cannot be staged"))?;
        let decompress = start(scope, "decompress", move || {
            self.decompress(receiver, source)
        })?;
        let digest = start(scope, "digest", move || {
            copies.digest(self.diff_id.verifier())
        })?;
        let extract = start(scope, "unpack", move || {
            let extracted = extract(
                &mut blocks,
                &staged.path(),
                listing,
                &self.ceilings,
                self.rights,
            )?;
            Ok((staged, extracted))
        })?;
        Ok(Unpacker {
            decompress,
            digest,
            extract,
        })
    }

    fn start_flusher<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Option<Flusher<'scope>>, Failure> {
        if self.descriptor.size < 2 * FLUSH {
            return Ok(None);
        }
        let (begin, begun) = sync_channel(0);
        let thread = start(scope, "flush", move || {
            while begun.recv().is_ok() {
                self.store.flush()?;
            }
            Ok(())
        })?;
        Ok(Some(Flusher { begin, thread }))
    }

    fn decompress(&self, receiver: Receiver<Bytes>, source: Source) -> Result<(), UnpackError> {
        let taken = Arc::new(AtomicU64::new(0));
        let pipe = Pipe {
            receiver,
            piece: Bytes::new(),
            taken: Arc::clone(&taken),
            left: self.descriptor.size,
        };
        match decompress(pipe, taken, &self.ceilings) {
            Ok(bytes) => source.run(bytes),
            Err(error) => Err(source.fail(error)),
        }
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

    fn unpack_failed(&self, error: UnpackError) -> Failure {
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
struct Hashing<'scope, 'job> {
    job: &'job Job,
    verifier: towline_oci::Verifier,
    len: u64,
    pipe: Option<SyncSender<Bytes>>,
    unpacker: Option<Unpacker<'scope>>,
    unpacked: Option<Unpacked>,
    flusher: Option<Flusher<'scope>>,
}

/// The thread that writes to the disk what was unpacked so far.
struct Flusher<'scope> {
    begin: SyncSender<()>,
    thread: ScopedJoinHandle<'scope, Result<(), StoreError>>,
}

impl Hashing<'_, '_> {
    fn run(
        mut self,
        queued: &Receiver<Piece>,
        spool: &Mutex<Spool>,
    ) -> Result<Option<(Digest, Unpacked)>, Failure> {
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
                    self.take(piece.bytes)?;
                    continue;
                }
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => open = false,
            }
            if let Some(piece) = self.next_kept(spool)? {
                self.take(piece)?;
                continue;
            }
            if !open {
                return Ok(false);
            }
            // Whatever is written to the spool from here on is in the queue too, which is empty.
            match queued.recv() {
                Ok(piece) if piece.at == self.len => self.take(piece.bytes)?,
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

    fn take(&mut self, piece: Bytes) -> Result<(), Failure> {
        self.verifier.update(&piece);
        let before = self.len / FLUSH;
        self.len += piece.len() as u64;
        // Near the end the sync of the whole layer is near.
        if self.len / FLUSH > before
            && self.job.descriptor.size - self.len > FLUSH / 2
            && let Some(flusher) = &self.flusher
        {
            // One that runs is enough.
            flusher.begin.try_send(()).ok();
        }
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        if pipe.send(piece).is_ok() {
            return Ok(());
        }
        self.pipe = None;
        match self.join() {
            // The disk or a ceiling: no further byte changes that.
            Err(error) if !error.blames_bytes() => Err(self.job.unpack_failed(error)),
            other => {
                self.unpacked = Some(other);
                Ok(())
            }
        }
    }

    fn join(&mut self) -> Unpacked {
        let unpacker = self.unpacker.take();
        unpacker.map_or(Err(UnpackError::Stopped), Unpacker::join)
    }

    /// The digest of all bytes, and what the unpacker made of them. `None` where they are not all here.
    fn finish(mut self, whole: bool) -> Result<Option<(Digest, Unpacked)>, Failure> {
        drop(self.pipe.take());
        let unpacked = match self.unpacked.take() {
            Some(unpacked) => unpacked,
            None => self.join(),
        };
        if let Some(Flusher { begin, thread }) = self.flusher.take() {
            drop(begin);
            joined(thread)
                .map_err(|error| self.job.failed(error, Step::Commit, "cannot be written"))?;
        }
        if !whole {
            return Ok(None);
        }
        match unpacked {
            Err(error) if !error.blames_bytes() => Err(self.job.unpack_failed(error)),
            unpacked => Ok(Some((self.verifier.finish(), unpacked))),
        }
    }
}

/// The unpacker's end of the pipe.
struct Pipe {
    receiver: Receiver<Bytes>,
    piece: Bytes,
    taken: Arc<AtomicU64>,
    /// Bytes that have not come yet.
    left: u64,
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && self.left > 0 {
            self.piece = self
                .receiver
                .recv()
                .map_err(|_| io::Error::from(UnpackError::Stopped))?;
            self.left = self.left.saturating_sub(self.piece.len() as u64);
            self.taken
                .fetch_add(self.piece.len() as u64, Ordering::Relaxed);
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}
