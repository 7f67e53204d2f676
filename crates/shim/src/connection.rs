//! A client's connection: bytes in, bytes out, and the request it waits for.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use towline_shim_api::frame::{Decoder, FrameError, encode};
use towline_shim_api::{FailureCode, Request, Response};

use crate::fail;

/// Bytes to be written beyond which an exec's outputs are not read any more,
/// so that a client that reads slowly slows its command down.
const HIGH_WATER: usize = 4 << 20;

/// What a connection waits for.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// The end of a container.
    Wait {
        id: String,
        deadline: Option<Instant>,
    },
    /// The end of a container, to delete it.
    Delete { id: String },
    /// The end of its exec.
    Exec,
    /// The end of everything.
    Shutdown,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// How much of `out` has been written.
    written: usize,
    pub(crate) greeted: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) closed: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            decoder: Decoder::default(),
            out: Vec::new(),
            written: 0,
            greeted: false,
            pending: None,
            closed: false,
        })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether there are bytes to be written.
    pub(crate) fn has_output(&self) -> bool {
        self.written < self.out.len()
    }

    /// Whether the client does not read fast enough.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() - self.written > HIGH_WATER
    }

    /// Whether a request may be read: none is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_none() && !self.closed
    }

    /// Reads one chunk.
    pub(crate) fn receive(&mut self) {
        let mut chunk = vec![0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(length) => self.decoder.push(&chunk[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => self.closed = true,
            },
        }
    }

    /// The next request that has come whole. What is no request is answered
    /// here.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        while self.is_idle() {
            match self.decoder.next_message() {
                Ok(request) => return request,
                Err(FrameError::Json(error)) => {
                    let text = format!("not a request of this version: {error}");
                    self.answer(&Response::Failure(fail(FailureCode::BadRequest, text)));
                }
                Err(_) => self.closed = true,
            }
        }
        None
    }

    /// Queues an answer.
    pub(crate) fn answer(&mut self, response: &Response) {
        match encode(response) {
            Ok(frame) => self.out.extend_from_slice(&frame),
            // Nothing that we answer is as large as a frame may be.
            Err(_) => self.closed = true,
        }
    }

    /// Queues the answer that the connection waited for.
    pub(crate) fn complete(&mut self, response: &Response) {
        self.pending = None;
        self.answer(response);
    }

    /// Writes what can be written.
    pub(crate) fn flush(&mut self) {
        while self.has_output() && !self.closed {
            match self.stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
        if !self.has_output() {
            self.out = Vec::new();
            self.written = 0;
        } else if self.written > HIGH_WATER / 4 {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Writes the last answer, waiting up to a moment for a slow client.
    pub(crate) fn flush_last(&mut self) {
        // Best effort: the client may be gone.
        drop(self.stream.set_nonblocking(false));
        drop(
            self.stream
                .set_write_timeout(Some(std::time::Duration::from_secs(1))),
        );
        drop(self.stream.write_all(&self.out[self.written..]));
    }
}
