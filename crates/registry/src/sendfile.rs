//! Files that the kernel copies to a connection, without a detour through this process.
//!
//! hyper writes slices of memory. A body of this kind gives it slices of a hole: memory that nobody reads or writes and that
//! only says how many bytes go there. [`Direct`] knows the hole by its address and lets `sendfile` send the next bytes of the file
//! that the body put into the connection's lane. This is for HTTP/1 without TLS alone: there hyper hands slices on as it got
//! them. Elsewhere the same bodies are read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Seek as _};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use towline_sys::task;

/// The most bytes of one slice.
const HOLE: usize = 1 << 20;
/// Bytes that are read at a time to have them in the kernel's memory.
const WARMING: usize = 128 << 10;

/// Address space; never touched, so that it costs no memory.
static ABYSS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; HOLE]));

/// Whether a slice is part of the hole.
fn is_hole(slice: &[u8]) -> bool {
    let hole = ABYSS.as_ptr().addr();
    (hole..hole + HOLE).contains(&slice.as_ptr().addr())
}

/// What goes next through the holes of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane(Arc<Mutex<VecDeque<Next>>>);

#[derive(Debug)]
struct Next {
    file: Arc<File>,
    length: usize,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Next>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next bytes of a file as holes of a connection.
#[derive(Debug)]
pub(crate) struct Sent {
    file: Arc<File>,
    /// Where the next hole begins in the file; known once it is asked for.
    at: Option<u64>,
    length: u64,
    lane: Lane,
    warming: Option<JoinHandle<io::Result<()>>>,
}

impl Sent {
    pub(crate) fn new(file: File, length: u64, lane: &Lane) -> Self {
        Self {
            file: Arc::new(file),
            at: None,
            length,
            lane: lane.clone(),
            warming: None,
        }
    }
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.length == 0 {
            return Poll::Ready(None);
        }
        let at = match self.at {
            Some(at) => at,
            // It moves no bytes and does not block.
            None => match (&*self.file).stream_position() {
                Ok(at) => at,
                Err(error) => return Poll::Ready(Some(Err(error))),
            },
        };
        self.at = Some(at);
        let length = usize::try_from(self.length).unwrap_or(HOLE).min(HOLE);
        if self.warming.is_none() && !is_warm(&self.file, at, length) {
            let file = Arc::clone(&self.file);
            let warming = task::blocking("read ahead", move || warm(&file, at, length));
            self.warming = Some(task::spawn("read ahead", warming));
        }
        if let Some(warming) = &mut self.warming {
            let warmed = ready!(Pin::new(warming).poll(cx));
            self.warming = None;
            if let Err(error) = warmed.unwrap_or_else(|error| Err(io::Error::other(error))) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let next = Next {
            file: Arc::clone(&self.file),
            length,
        };
        self.lane.lock().push_back(next);
        self.at = Some(at + length as u64);
        self.length -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(ABYSS.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// Whether the first and the last byte can be had without waiting for the disk. A file system that cannot say so is taken at its word.
fn is_warm(file: &File, at: u64, length: usize) -> bool {
    [at, at + length as u64 - 1].into_iter().all(|at| {
        let mut byte = [0];
        let into = &mut [io::IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(file, into, at, ReadWriteFlags::NOWAIT);
        !matches!(read, Err(Errno::AGAIN))
    })
}

/// Has the kernel read a part of a file. Blocks.
fn warm(file: &File, mut at: u64, length: usize) -> io::Result<()> {
    let end = at + length as u64;
    let mut buffer = vec![0; WARMING.min(length)];
    while at < end {
        let most = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        match rustix::io::pread(file, &mut buffer[..most], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A connection that sends files where it is told to write holes.
#[derive(Debug)]
pub(crate) struct Direct {
    stream: TcpStream,
    lane: Lane,
}

impl Direct {
    pub(crate) fn new(stream: TcpStream, lane: Lane) -> Self {
        Self { stream, lane }
    }

    /// Sends what a hole follows: the kernel waits for that, so that both leave together.
    fn poll_head(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let nothing = &mut SendAncillaryBuffer::default();
                let how = SendFlags::MORE | SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(&self.stream, slices, nothing, how)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_hole(&self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let mut lane = self.lane.lock();
            let Some(next) = lane.front_mut() else {
                return Poll::Ready(Err(io::Error::other("a hole without a file")));
            };
            let most = length.min(next.length);
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                // From where the file stands, which goes on with it.
                Ok(rustix::fs::sendfile(&self.stream, &next.file, None, most)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    next.length -= sent;
                    if next.length == 0 {
                        lane.pop_front();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if is_hole(bytes) {
            return self.poll_hole(cx, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().position(|slice| !slice.is_empty());
        let slices = &slices[first.unwrap_or(slices.len())..];
        let before = slices.iter().take_while(|slice| !is_hole(slice)).count();
        match slices.first() {
            Some(slice) if before == 0 => self.poll_hole(cx, slice.len()),
            Some(_) if before < slices.len() => self.poll_head(cx, &slices[..before]),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
