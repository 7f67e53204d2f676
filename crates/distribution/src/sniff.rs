//! A stream that remembers the first bytes it read, so that a wrong protocol can be named.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KEPT: usize = 16;

/// How a connection began: its first bytes, and whether the peer is this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct First {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Whether the peer's address is loopback.
    pub(crate) local: bool,
}

impl First {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether these are the start of a TLS record: alert or handshake, version 3.x.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.bytes().as_slice(), [0x15 | 0x16, 0x03, ..])
    }
}

/// A stream and the memory of how it began.
#[derive(Debug)]
pub(crate) struct Sniffed<S> {
    stream: S,
    first: First,
    full: bool,
}

impl<S> Sniffed<S> {
    pub(crate) fn new(stream: S, local: bool) -> Self {
        Self {
            stream,
            first: First {
                local,
                ..First::default()
            },
            full: false,
        }
    }

    pub(crate) fn first(&self) -> First {
        self.first.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.full && matches!(polled, Poll::Ready(Ok(()))) {
            let read = &buffer.filled()[before..];
            let mut kept = self
                .first
                .bytes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let room = KEPT - kept.len();
            kept.extend_from_slice(&read[..read.len().min(room)]);
            let full = kept.len() == KEPT;
            drop(kept);
            self.full = full;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
