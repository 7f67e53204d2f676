//! Decompression, hashing and unpacking on three threads: blocks of bytes between them, a bounded number of them, used over and over.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use towline_oci::{Digest, Verifier};

use super::decompress::Decompressed;
use super::error::UnpackError;

/// Bytes of a block: most files of an image fit in and are written at once.
const BLOCK: usize = 1 << 18;
/// Blocks that wait for the unpacker, at most.
const WAITING: usize = 4;

/// A block's bytes, unpacked and hashed at the same time.
#[derive(Default)]
struct Buffer(Vec<u8>);

type Block = Result<Arc<Buffer>, UnpackError>;

/// The decompressing end.
pub(crate) struct Source {
    full: SyncSender<Block>,
    copies: SyncSender<Arc<Buffer>>,
    empty: Receiver<Vec<u8>>,
}

/// The hashing end.
pub(crate) struct Copies {
    full: Receiver<Arc<Buffer>>,
    empty: SyncSender<Vec<u8>>,
}

/// Gives a block back when nobody else needs it.
fn give_back(block: Arc<Buffer>, empty: &SyncSender<Vec<u8>>) {
    if let Some(block) = Arc::into_inner(block) {
        // One that does not fit is one too many.
        empty.try_send(block.0).ok();
    }
}

impl Copies {
    /// The digest of all bytes that came.
    pub(crate) fn digest(self, mut verifier: Verifier) -> Digest {
        while let Ok(block) = self.full.recv() {
            verifier.update(&block.0);
            give_back(block, &self.empty);
        }
        verifier.finish()
    }
}

/// The unpacking end: the decompressed bytes as a reader.
pub(crate) struct Blocks {
    full: Receiver<Block>,
    empty: SyncSender<Vec<u8>>,
    block: Arc<Buffer>,
    at: usize,
    ended: bool,
}

/// A pipe of blocks.
pub(crate) fn pipe() -> (Source, Blocks, Copies) {
    let (full, filled) = sync_channel(WAITING);
    let (copies, copied) = sync_channel(WAITING);
    let (emptied, empty) = sync_channel(2 * WAITING + 2);
    let blocks = Blocks {
        full: filled,
        empty: emptied.clone(),
        block: Arc::default(),
        at: 0,
        ended: false,
    };
    let hashed = Copies {
        full: copied,
        empty: emptied,
    };
    (
        Source {
            full,
            copies,
            empty,
        },
        blocks,
        hashed,
    )
}

impl Source {
    /// Decompresses everything into the pipe. Ends early, with [`UnpackError::Stopped`], when the
    /// unpacker is gone or was given the error that stands in the way.
    /// `alive` is told after each block that was given away.
    pub(crate) fn run<R: BufRead>(
        self,
        mut bytes: Decompressed<R>,
        alive: &dyn Fn(),
    ) -> Result<(), UnpackError> {
        loop {
            let mut block = self.empty.try_recv().unwrap_or_default();
            block.resize(BLOCK, 0);
            match fill(&mut bytes, &mut block) {
                Ok(0) => return Ok(()),
                Ok(filled) => {
                    block.truncate(filled);
                    let block = Arc::new(Buffer(block));
                    // It goes on without hashing only when it panics, which is told elsewhere.
                    self.copies.send(Arc::clone(&block)).ok();
                    self.give(Ok(block))?;
                    alive();
                }
                Err(error) => {
                    self.give(Err(UnpackError::from_read(error)))?;
                    return Err(UnpackError::Stopped);
                }
            }
        }
    }

    /// Tells the unpacker why nothing comes.
    pub(crate) fn fail(self, error: UnpackError) -> UnpackError {
        // Whoever is gone has an error of its own.
        self.give(Err(error)).err().unwrap_or(UnpackError::Stopped)
    }

    fn give(&self, block: Block) -> Result<(), UnpackError> {
        self.full.send(block).map_err(|_| UnpackError::Stopped)
    }
}

fn fill(bytes: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match bytes.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.block.0.len() && !self.ended {
            self.at = 0;
            give_back(std::mem::take(&mut self.block), &self.empty);
            match self.full.recv() {
                Ok(Ok(block)) => self.block = block,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.block.0[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::Ceilings;
    use crate::unpack::decompress;

    fn through(
        bytes: &[u8],
        ceilings: &Ceilings,
    ) -> (Result<Digest, UnpackError>, io::Result<Vec<u8>>) {
        let (source, mut blocks, copies) = pipe();
        let taken = Arc::new(AtomicU64::new(1));
        std::thread::scope(|scope| {
            let source = scope.spawn(move || {
                let bytes = decompress(bytes, taken, ceilings)?;
                source.run(bytes, &|| {})
            });
            let digest = scope.spawn(move || copies.digest(Digest::of(b"").verifier()));
            let mut out = Vec::new();
            let read = blocks.read_to_end(&mut out).map(|_| out);
            let digest = digest.join().unwrap();
            (source.join().unwrap().map(|()| digest), read)
        })
    }

    #[test]
    fn bytes_come_through_whole_and_in_order() {
        let bytes: Vec<u8> = (0..251_u8).cycle().take(BLOCK * 7 + 5).collect();
        let (digest, read) = through(&bytes, &Ceilings::default());
        assert_eq!(digest.unwrap(), Digest::of(&bytes));
        assert!(read.unwrap() == bytes);
    }

    #[test]
    fn an_error_of_the_decompressor_is_the_readers() {
        let ceilings = Ceilings {
            layer_bytes: BLOCK as u64,
            ..Ceilings::default()
        };
        let (digest, read) = through(&vec![1; BLOCK * 3], &ceilings);
        assert!(matches!(digest, Err(UnpackError::Stopped)));
        let error = UnpackError::from_read(read.unwrap_err());
        assert!(matches!(error, UnpackError::Ceiling { .. }), "{error}");
    }
}
