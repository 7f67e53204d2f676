//! Whoever makes files of a layer's bytes while they come: a process of its own, or a thread here.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use bytes::{Buf as _, Bytes};
use towline_cause::{Failure, Step};
use towline_oci::Digest;
use towline_store::{Listing, Spool, StagedLayer, StoreError};

use crate::helper::{Helpers, LayerProcess};
use crate::receive::{Job, start};
use crate::unpack::{Attribute, Extracted, Target, UnpackError, Unpacked, joined, unpack};

/// Pieces between receiver and decompressor, at most, where both are here.
const WAITING: usize = 4;
/// The process is told of bytes when so many more are there, or no more come.
const TOLD: u64 = 1 << 17;
/// A layer of at least so many compressed bytes is written to the disk while it comes, each time that so many more were unpacked: the sync at
/// its end then has little left to do.
const FLUSH: u64 = 32 << 20;

/// A layer that was unpacked, not yet sealed.
pub(crate) type Made = Result<(StagedLayer, Extracted, Digest), UnpackError>;

/// Makes files of bytes that are given to it in order. Dropped, it stops, and leaves nothing.
pub(crate) struct Unpacker<'scope> {
    /// Until it is joined.
    parts: Option<(Work<'scope>, StagedLayer)>,
}

enum Work<'scope> {
    Here(Here<'scope>),
    Process(Process<'scope>),
}

impl<'scope> Unpacker<'scope> {
    pub(crate) fn start(
        job: &'scope Job,
        scope: &'scope Scope<'scope, '_>,
        staged: StagedLayer,
        flusher: Option<Flusher>,
    ) -> Result<Self, Failure> {
        let stage = |error: StoreError| job.failed(error, Step::Unpack, "cannot be staged");
        let listing = staged.listing().map_err(stage)?;
        let root = towline_sys::fs::open(staged.path()).map_err(|error| stage(error.into()))?;
        let work = match &job.helpers {
            Some(helpers) => {
                let files = (&root, &listing);
                Work::Process(Process::start(job, scope, helpers, files, flusher)?)
            }
            None => Work::Here(Here::start(job, scope, root, listing, flusher)?),
        };
        Ok(Self {
            parts: Some((work, staged)),
        })
    }

    /// Gives it the bytes from `at` on, which are in the spool too. False where it ended: it takes no more, and [`Unpacker::join`] tells why.
    pub(crate) fn give(
        &mut self,
        at: u64,
        piece: Bytes,
        spool: &Mutex<Spool>,
    ) -> Result<bool, StoreError> {
        match self.parts.as_mut().map(|(work, _)| work) {
            None => Ok(false),
            Some(Work::Here(here)) => Ok(here.give(piece)),
            Some(Work::Process(process)) => process.note(at, piece.len() as u64, spool),
        }
    }

    /// Lets it have all that it was given: no more may come for a while.
    pub(crate) fn push(&mut self) {
        if let Some((Work::Process(process), _)) = &mut self.parts {
            process.tell();
        }
    }

    /// What it made of what it was given, which was everything, or it ended early.
    pub(crate) fn join(mut self) -> Made {
        let (work, staged) = self.parts.take().ok_or(UnpackError::Stopped)?;
        let (extracted, digest) = work.join()?;
        Ok((staged, extracted, digest))
    }
}

impl Drop for Unpacker<'_> {
    fn drop(&mut self) {
        if let Some((work, staged)) = self.parts.take() {
            // Whoever stopped it knows why.
            drop(work.join());
            // Nobody writes there any more.
            drop(staged);
        }
    }
}

impl Work<'_> {
    /// What it made of what it was given; where that was not everything, nothing.
    fn join(self) -> Result<Unpacked, UnpackError> {
        match self {
            Self::Here(here) => {
                drop(here.pipe);
                joined(here.thread)
            }
            Self::Process(process) => process.join(),
        }
    }
}

/// Threads of this process.
struct Here<'scope> {
    pipe: SyncSender<Bytes>,
    thread: ScopedJoinHandle<'scope, Result<Unpacked, UnpackError>>,
    flusher: Option<Flusher>,
    given: u64,
}

impl<'scope> Here<'scope> {
    fn start(
        job: &'scope Job,
        scope: &'scope Scope<'scope, '_>,
        root: File,
        listing: File,
        flusher: Option<Flusher>,
    ) -> Result<Self, Failure> {
        let (pipe, receiver) = sync_channel(WAITING);
        let thread = start(scope, "decompress", move || {
            let taken = Arc::new(AtomicU64::new(0));
            let pipe = Pipe {
                receiver,
                piece: Bytes::new(),
                taken: Arc::clone(&taken),
                left: job.descriptor.size,
            };
            let target = Target {
                root: root.into(),
                listing: Listing::new(listing),
                rights: job.rights,
                marks: &Attribute::of(job.rights),
            };
            let verifier = job.diff_id.verifier();
            unpack(pipe, taken, target, verifier, &job.ceilings, &|| {})
        })?;
        Ok(Self {
            pipe,
            thread,
            flusher,
            given: 0,
        })
    }

    fn give(&mut self, piece: Bytes) -> bool {
        self.given += piece.len() as u64;
        if let Some(flusher) = &mut self.flusher {
            flusher.reached(self.given);
        }
        self.pipe.send(piece).is_ok()
    }
}

/// A process, which reads the spool, and the thread that listens to it.
struct Process<'scope> {
    layer: Arc<LayerProcess>,
    listener: ScopedJoinHandle<'scope, Result<Unpacked, UnpackError>>,
    size: u64,
    /// Where the file of the spool begins that it reads.
    file: Option<u64>,
    given: u64,
    /// Bytes that it knows of.
    told: u64,
}

impl<'scope> Process<'scope> {
    fn start(
        job: &'scope Job,
        scope: &'scope Scope<'scope, '_>,
        helpers: &Helpers,
        (root, listing): (&File, &File),
        mut flusher: Option<Flusher>,
    ) -> Result<Self, Failure> {
        let size = job.descriptor.size;
        let bounds = (&job.ceilings, job.rights);
        let layer = helpers
            .begin((size, &job.diff_id), bounds, root, listing)
            .map_err(|error| job.unpack_failed(error))?;
        let layer = Arc::new(layer);
        let heard = Arc::clone(&layer);
        let listener = start(scope, "listen", move || {
            heard.listen(|taken| {
                if let Some(flusher) = &mut flusher {
                    flusher.reached(taken);
                }
            })
        })?;
        Ok(Self {
            layer,
            listener,
            size,
            file: None,
            given: 0,
            told: 0,
        })
    }

    /// Notes that the spool has so many bytes from `at` on, and tells of them when they are enough. False where the process ended.
    fn note(&mut self, at: u64, length: u64, spool: &Mutex<Spool>) -> Result<bool, StoreError> {
        if self.listener.is_finished() {
            return Ok(false);
        }
        let spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        let start = spool.file_at(at);
        if self.file == start {
            drop(spool);
            self.given = at + length;
            return Ok(self.given - self.told < TOLD || self.tell());
        }
        let opened = spool.open_file(start.unwrap_or(at))?;
        drop(spool);
        // What is left in the file before comes first.
        let listening = self.tell();
        self.file = start;
        self.given = at + length;
        self.told = self.given;
        let beside = Some((start.unwrap_or(at), &opened));
        Ok(listening && self.layer.tell(self.given, beside))
    }

    /// Tells the process of all that it does not know. False where it ended.
    fn tell(&mut self) -> bool {
        if self.told == self.given {
            return true;
        }
        self.told = self.given;
        self.layer.tell(self.given, None)
    }

    fn join(mut self) -> Result<Unpacked, UnpackError> {
        self.tell();
        if self.given < self.size {
            self.layer.stop();
        }
        joined(self.listener)
    }
}

/// Has what was unpacked so far written to the disk now and then.
pub(crate) struct Flusher {
    begin: SyncSender<()>,
    size: u64,
    at: u64,
}

/// The thread that does it, until nobody asks any more.
pub(crate) type Flushing<'scope> = ScopedJoinHandle<'scope, Result<(), StoreError>>;

impl Flusher {
    /// `None` where the layer is too small to be worth it.
    pub(crate) fn start<'scope>(
        job: &'scope Job,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Option<(Self, Flushing<'scope>)>, Failure> {
        let size = job.descriptor.size;
        if size < 2 * FLUSH {
            return Ok(None);
        }
        let (begin, begun) = sync_channel(0);
        let thread = start(scope, "flush", move || {
            while begun.recv().is_ok() {
                job.store.flush()?;
            }
            Ok(())
        })?;
        Ok(Some((Self { begin, size, at: 0 }, thread)))
    }

    /// So many compressed bytes were unpacked.
    fn reached(&mut self, taken: u64) {
        let before = std::mem::replace(&mut self.at, taken) / FLUSH;
        // Near the end the sync of the whole layer is near.
        if taken / FLUSH > before && self.size.saturating_sub(taken) > FLUSH / 2 {
            // One that runs is enough.
            self.begin.try_send(()).ok();
        }
    }
}

/// The bytes that a thread here is given.
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
