//! The process of one layer.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use towline_oci::Digest;
use towline_store::Listing;
use towline_sys::confine::{Confinement, Limits};

use super::wire::{Bytes, Done, Fault, Order, Said, readable, receive, send};
use crate::Ceilings;
use crate::unpack::{Attribute, Marks, Target, UnpackError, Unpacked, WAITING_BYTES, unpack};

/// Bytes that are read from the spool at once.
const PIECE: usize = 1 << 17;
/// It says that it lives when so many compressed bytes were taken, or so much time has passed.
const ALIVE_BYTES: u64 = 4 << 20;
const ALIVE: Duration = Duration::from_secs(1);
/// Memory of blocks, threads, decompressors and whatever else does not grow with the layer.
const MEMORY: u64 = 128 << 20;
/// The directories that are kept open, the files, and some to spare.
const DESCRIPTORS: u64 = 128;

/// What may be used for a layer with these ceilings.
fn limits(ceilings: &Ceilings) -> Limits {
    // What is counted of a directory, and about as much again for keeping it.
    let directories = 2 * WAITING_BYTES as u64;
    let headers = 4 * ceilings.header_bytes as u64;
    Limits {
        memory: MEMORY + directories + headers + (2_u64 << ceilings.zstd_window_log),
        file: ceilings.layer_bytes,
        descriptors: DESCRIPTORS,
    }
}

/// Gives its rights up and unpacks the layer, or does what it is told instead; what to say of it.
pub(super) fn run(
    order: &Order,
    socket: &OwnedFd,
    folder: OwnedFd,
    listing: OwnedFd,
    confinement: &Confinement,
    instead: Option<fn() -> String>,
) -> Said {
    // Others than root of the machine have owners to set where they have more users than one.
    let owners = !order.rights.unprivileged || order.rights.exact_owners;
    let folder = match confinement.enter(folder, limits(&order.ceilings), owners) {
        Ok((folder, lacking)) => {
            if !lacking.is_empty() {
                // Nobody listens where this fails.
                send(socket, &Said::Lacks(lacking), &[]).ok();
            }
            folder
        }
        Err(error) => {
            let how = format!("cannot give its rights up: {error}");
            return Said::Failed(Fault::Helper(how));
        }
    };
    if let Some(instead) = instead {
        return Said::Failed(Fault::Helper(instead()));
    }
    let unpacked = catch_unwind(AssertUnwindSafe(|| layer(order, socket, folder, listing)));
    match unpacked {
        Ok(Ok((extracted, digest))) => Said::Done(Done {
            digest: digest.to_string(),
            size: extracted.size,
            entries: extracted.entries,
            opaque_root: extracted.opaque_root,
            listed: extracted.listed,
            left_out: extracted.left_out,
        }),
        Ok(Err(error)) => Said::Failed(error.into()),
        Err(panic) => {
            let how = format!("panicked: {}", words(panic.as_ref()));
            Said::Failed(Fault::Helper(how))
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word")
}

fn layer(
    order: &Order,
    socket: &OwnedFd,
    root: OwnedFd,
    listing: OwnedFd,
) -> Result<Unpacked, UnpackError> {
    let diff_id = Digest::parse(&order.diff_id)
        .map_err(|error| UnpackError::Helper(format!("was given no digest: {error}")))?;
    let rights = order.rights;
    let (own, asked) = (Attribute::of(rights), Asked { socket });
    let target = Target {
        root,
        listing: Listing::new(File::from(listing)),
        rights,
        marks: if rights.unprivileged { &own } else { &asked },
    };
    let taken = Arc::new(AtomicU64::new(0));
    let voice = Voice {
        socket,
        taken: Arc::clone(&taken),
        blocks: Cell::new(0),
        last: Cell::new((Instant::now(), 0)),
    };
    let input = Spooled {
        voice: &voice,
        size: order.size,
        until: 0,
        file: None,
        piece: vec![0; PIECE],
        at: 0,
        filled: 0,
        read: 0,
    };
    let alive = || voice.after_block();
    unpack(
        input,
        taken,
        target,
        diff_id.verifier(),
        &order.ceilings,
        &alive,
    )
}

/// For root's overlay mounts the mark takes a right that this process does not have: who started it marks the directory.
struct Asked<'a> {
    socket: &'a OwnedFd,
}

impl Marks for Asked<'_> {
    fn opaque(&self, dir: &OwnedFd) -> rustix::io::Result<()> {
        send(self.socket, &Said::Opaque, &[dir.as_fd()])
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Says that work goes on.
struct Voice<'a> {
    socket: &'a OwnedFd,
    taken: Arc<AtomicU64>,
    blocks: Cell<u64>,
    /// When it spoke last, and of how many bytes.
    last: Cell<(Instant, u64)>,
}

impl Voice<'_> {
    fn after_block(&self) {
        self.blocks.set(self.blocks.get() + 1);
        let (when, bytes) = self.last.get();
        let taken = self.taken.load(Ordering::Relaxed);
        if taken - bytes >= ALIVE_BYTES || when.elapsed() >= ALIVE {
            self.speak();
        }
    }

    fn speak(&self) {
        let taken = self.taken.load(Ordering::Relaxed);
        self.last.set((Instant::now(), taken));
        let blocks = self.blocks.get();
        // Whoever does not listen any more ends this process.
        send(self.socket, &Said::Alive { taken, blocks }, &[]).ok();
    }
}

/// The compressed bytes, read from the spool as far as they are there.
struct Spooled<'a> {
    voice: &'a Voice<'a>,
    size: u64,
    /// All before this one are there.
    until: u64,
    /// The file with the next one, and the byte that it begins with.
    file: Option<(u64, File)>,
    piece: Vec<u8>,
    at: usize,
    filled: usize,
    /// Bytes that were read.
    read: u64,
}

impl Spooled<'_> {
    /// Waits until there are more.
    fn wait(&mut self) -> io::Result<()> {
        let socket = self.voice.socket;
        let (when, told) = self.voice.last.get();
        if self.read > told && when.elapsed() >= ALIVE {
            // Where few come at a time no block may be full for long.
            self.voice.speak();
        }
        if !readable(socket, 1000)? {
            // It is not this process that is slow.
            self.voice.speak();
        }
        let Some((bytes, mut beside)) = receive::<Bytes>(socket)? else {
            return Err(UnpackError::Stopped.into());
        };
        self.until = bytes.until;
        if let (Some(start), Some(file)) = (bytes.file, beside.pop()) {
            self.file = Some((start, File::from(file)));
        }
        Ok(())
    }

    fn next_piece(&mut self) -> io::Result<()> {
        while self.read >= self.until {
            self.wait()?;
        }
        let left = usize::try_from(self.until - self.read).unwrap_or(usize::MAX);
        let most = left.min(self.piece.len());
        let (start, file) = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.filled = file.read_at(&mut self.piece[..most], self.read - start)?;
        if self.filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at = 0;
        self.read += self.filled as u64;
        self.voice
            .taken
            .fetch_add(self.filled as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl BufRead for Spooled<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled && self.read < self.size {
            self.next_piece()?;
        }
        Ok(&self.piece[self.at..self.filled])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Spooled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}
