//! The body of an answer: read with a bound and an idle limit; its connection goes back to the pool at the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::pool::{Http1, Key, Pool};
use crate::sniff::First;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("no byte came for {} s", .0.as_secs_f32())]
    Idle(Duration),
    #[error("the connection was closed in the middle of the body")]
    Cut,
    #[error("the connection was reset in the middle of the body")]
    Reset,
    #[error("the body is longer than the {0} bytes that are read")]
    TooLarge(usize),
    #[error("the body cannot be read: {0}")]
    Other(String),
}

/// A body that arrives.
pub(crate) struct Body {
    incoming: Incoming,
    pool: Arc<Pool>,
    back: Option<(Key, Http1, First)>,
    idle: Duration,
    ended: bool,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn new(
        incoming: Incoming,
        pool: Arc<Pool>,
        back: Option<(Key, Http1, First)>,
        idle: Duration,
    ) -> Self {
        Self {
            incoming,
            pool,
            back,
            idle,
            ended: false,
        }
    }

    /// The next piece, never empty; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BodyFault>> {
        loop {
            match tokio::time::timeout(self.idle, self.incoming.frame()).await {
                Err(_) => return Some(Err(BodyFault::Idle(self.idle))),
                Ok(None) => {
                    // Of one that came in chunks only this tells.
                    self.ended = true;
                    return None;
                }
                Ok(Some(Err(error))) => return Some(Err(of_hyper(&error))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    _ => {}
                },
            }
        }
    }

    /// The whole body, which must not be longer than `limit`.
    pub(crate) async fn read(mut self, limit: usize) -> Result<Bytes, BodyFault> {
        if self.incoming.size_hint().lower() > limit as u64 {
            return Err(BodyFault::TooLarge(limit));
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            if whole.len() + piece.len() > limit {
                return Err(BodyFault::TooLarge(limit));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// As much of the body as arrives within the limits; for error texts, which must not fail themselves.
    pub(crate) async fn read_some(mut self, limit: usize, time: Duration) -> Bytes {
        let mut whole = BytesMut::new();
        let all = async {
            while let Some(Ok(piece)) = self.next().await {
                let room = limit - whole.len();
                whole.extend_from_slice(&piece[..piece.len().min(room)]);
                if whole.len() == limit {
                    break;
                }
            }
        };
        // A body that is slow to come is cut where it stands.
        tokio::time::timeout(time, all).await.ok();
        whole.freeze()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if (self.ended || self.incoming.is_end_stream())
            && let Some((key, sender, first)) = self.back.take()
        {
            self.pool.give_back(key, sender, first);
        }
    }
}

fn of_hyper(error: &hyper::Error) -> BodyFault {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::UnexpectedEof => BodyFault::Cut,
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::ConnectionAborted => BodyFault::Reset,
                kind => BodyFault::Other(kind.to_string()),
            };
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return BodyFault::Cut;
    }
    // An HTTP/2 stream or connection that the server ended early; its text names the reason and nothing else.
    let beneath = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    BodyFault::Other(format!("{error}{beneath}"))
}
