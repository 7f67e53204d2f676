//! An object that is fetched as it is read.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;

use super::client::Client;
use crate::body::Body;

/// An object that is fetched as it is read.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    name: String,
    size: u64,
    handle: Handle,
    /// What is read, once somebody began.
    open: Option<Body>,
    rest: Bytes,
}

impl Remote {
    pub(super) fn new(client: Client, name: String, size: u64, handle: Handle) -> Self {
        Self {
            client,
            name,
            size,
            handle,
            open: None,
            rest: Bytes::new(),
        }
    }

    /// So many bytes from this one on.
    pub(crate) fn body(&self, from: u64, length: u64) -> Body {
        self.client.body(&self.name, from, length)
    }
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let (client, name, size) = (&self.client, &self.name, self.size);
            let open = self.open.get_or_insert_with(|| client.body(name, 0, size));
            match self.handle.block_on(open.frame()) {
                None => return Ok(0),
                Some(frame) => {
                    if let Ok(piece) = frame?.into_data() {
                        self.rest = piece;
                    }
                }
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
