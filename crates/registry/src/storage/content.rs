//! A blob that is read: a file, bytes in memory, or bytes that come from elsewhere.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use bytes::Bytes;

use super::s3::Remote;
use crate::body::{self, Body};

/// A blob for reading. As [`Read`] it blocks.
#[derive(Debug)]
pub enum Content {
    /// A file, at its beginning.
    File(File),
    /// All of it.
    Memory(Memory),
    /// An object that is fetched as it is read.
    Remote(Box<Remote>),
}

/// Bytes, and how many of them were read.
#[derive(Debug)]
pub struct Memory {
    bytes: Bytes,
    at: usize,
}

impl Content {
    pub(crate) fn memory(bytes: Bytes) -> Self {
        Self::Memory(Memory { bytes, at: 0 })
    }

    /// The body of an answer: so many bytes from this one on.
    pub(crate) fn body(self, from: u64, length: u64) -> io::Result<Body> {
        match self {
            Self::File(mut content) => {
                if from > 0 {
                    // A seek moves a number in the kernel and does not block.
                    content.seek(SeekFrom::Start(from))?;
                }
                Ok(body::file(content, length))
            }
            Self::Memory(memory) => {
                let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
                let from = usize::try_from(from).map_err(|_| outside())?;
                let length = usize::try_from(length).map_err(|_| outside())?;
                let to = from.checked_add(length).ok_or_else(outside)?;
                if to > memory.bytes.len() {
                    return Err(outside());
                }
                Ok(body::full(memory.bytes.slice(from..to)))
            }
            Self::Remote(remote) => Ok(remote.body(from, length)),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Memory(memory) => {
                let rest = memory.bytes.get(memory.at..).unwrap_or_default();
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                memory.at += length;
                Ok(length)
            }
            Self::Remote(remote) => remote.read(buffer),
        }
    }
}
