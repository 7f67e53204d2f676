//! A part of an object as the body of an answer.

use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use super::client::{ATTEMPTS, Client, PATIENCE};
use crate::body::Body;

/// What is left of a part, and the connection that brings it.
struct Feed {
    client: Client,
    name: String,
    at: u64,
    end: u64,
    open: Option<Incoming>,
    breaks: u32,
}

impl Feed {
    /// The next bytes. Where a connection broke, another one goes on.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            if self.open.is_none() {
                let part = self.client.part(&self.name, self.at, self.end).await;
                self.open = Some(part.map_err(|error| io::Error::other(error.to_string()))?);
            }
            let Some(open) = &mut self.open else {
                continue;
            };
            if let Ok(Some(Ok(frame))) = tokio::time::timeout(PATIENCE, open.frame()).await {
                if let Ok(mut piece) = frame.into_data() {
                    let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                    piece.truncate(left);
                    self.at += piece.len() as u64;
                    return Ok(Some(piece));
                }
                continue;
            }
            self.open = None;
            self.breaks += 1;
            if self.breaks >= ATTEMPTS {
                return Err(io::Error::other("the object broke off again and again"));
            }
        }
    }
}

impl Client {
    /// A part of an object as a body, which goes on where a connection broke.
    pub(super) fn body(&self, name: &str, from: u64, length: u64) -> Body {
        let feed = Feed {
            client: self.clone(),
            name: name.to_owned(),
            at: from,
            end: from.saturating_add(length),
            open: None,
            breaks: 0,
        };
        let pieces = stream::unfold(Some(feed), |feed| async move {
            let mut feed = feed?;
            match feed.next().await {
                Ok(piece) => Some((Ok(Frame::data(piece?)), Some(feed))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Body::stream(StreamBody::new(pieces.boxed()))
    }
}
