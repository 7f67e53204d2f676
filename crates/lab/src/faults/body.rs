//! Bodies that misbehave.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;

use super::server::{Body, Ending};

/// How a body misbehaves.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    /// It ends early with an error, which closes the connection, or resets it.
    Cut { after: u64, reset: Option<Ending> },
    /// It stops coming.
    Stall { after: u64 },
    /// It comes slowly.
    Trickle { bytes: usize, pause: Duration },
    /// One byte is changed.
    Corrupt { at: u64 },
    /// Bytes follow it.
    Append(Bytes),
}

/// A body of which only the data is kept (trailers are not used by registries).
fn data(body: Body) -> BoxStream<'static, io::Result<Bytes>> {
    BodyStream::new(body)
        .filter_map(|frame| async {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(error)),
            }
        })
        .boxed()
}

fn body(chunks: impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    http_body_util::BodyExt::boxed(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))
}

/// Applies a flow to a body.
pub(super) fn with(original: Body, flow: Flow) -> Body {
    let chunks = data(original);
    match flow {
        Flow::Cut { after, reset } => body(sync(limited(chunks, after, End::Cut(reset)))),
        Flow::Stall { after } => body(sync(limited(chunks, after, End::Stall))),
        Flow::Trickle { bytes, pause } => body(sync(trickle(chunks, bytes.max(1), pause))),
        Flow::Corrupt { at } => body(sync(corrupt(chunks, at))),
        Flow::Append(more) => body(sync(
            chunks.chain(stream::once(async move { Ok(more) })).boxed(),
        )),
    }
}

/// A stream that may be shared between threads, which a boxed body asks for and never does.
fn sync(
    stream: BoxStream<'static, io::Result<Bytes>>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync {
    SyncStream(std::sync::Mutex::new(stream))
}

struct SyncStream(std::sync::Mutex<BoxStream<'static, io::Result<Bytes>>>);

impl futures::Stream for SyncStream {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.0.get_mut() {
            Ok(stream) => stream.as_mut().poll_next(cx),
            Err(_poisoned) => std::task::Poll::Ready(None),
        }
    }
}

#[derive(Clone, Debug)]
enum End {
    Cut(Option<Ending>),
    Stall,
}

fn limited(
    chunks: BoxStream<'static, io::Result<Bytes>>,
    after: u64,
    end: End,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(
        (chunks, after, end, false),
        |(mut chunks, left, end, over)| async move {
            if over {
                return None;
            }
            if left == 0 {
                return match end {
                    End::Stall => std::future::pending().await,
                    End::Cut(reset) => {
                        // The bytes before the cut must reach the peer: the server writes them out when the
                        // body is not ready, so it is not ready once.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        if let Some(ending) = &reset {
                            ending.reset().await;
                        }
                        let error = io::Error::from(io::ErrorKind::ConnectionAborted);
                        Some((Err(error), (chunks, 0, End::Cut(reset), true)))
                    }
                };
            }
            let chunk = match chunks.next().await? {
                Ok(chunk) => chunk,
                Err(error) => return Some((Err(error), (chunks, left, end, true))),
            };
            let keep = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let left = left - keep as u64;
            Some((Ok(chunk.slice(..keep)), (chunks, left, end, false)))
        },
    )
    .boxed()
}

fn trickle(
    chunks: BoxStream<'static, io::Result<Bytes>>,
    bytes: usize,
    pause: Duration,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(
        (chunks, Bytes::new()),
        move |(mut chunks, mut rest)| async move {
            while rest.is_empty() {
                match chunks.next().await? {
                    Ok(chunk) => rest = chunk,
                    Err(error) => return Some((Err(error), (chunks, rest))),
                }
            }
            tokio::time::sleep(pause).await;
            let part = rest.split_to(bytes.min(rest.len()));
            Some((Ok(part), (chunks, rest)))
        },
    )
    .boxed()
}

fn corrupt(
    chunks: BoxStream<'static, io::Result<Bytes>>,
    at: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    chunks
        .scan(0_u64, move |seen, chunk| {
            let start = *seen;
            let chunk = chunk.map(|chunk| {
                *seen += chunk.len() as u64;
                match at
                    .checked_sub(start)
                    .and_then(|offset| usize::try_from(offset).ok())
                {
                    Some(offset) if offset < chunk.len() => {
                        let mut changed = BytesMut::from(&chunk[..]);
                        changed[offset] ^= 0xff;
                        changed.freeze()
                    }
                    _ => chunk,
                }
            });
            std::future::ready(Some(chunk))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::server::full;
    use super::*;

    async fn collect(flow: Flow) -> io::Result<Bytes> {
        with(full("0123456789"), flow)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn flows_change_what_arrives() {
        assert_eq!(
            collect(Flow::Append("ab".into())).await.unwrap(),
            "0123456789ab"
        );
        let slow = Flow::Trickle {
            bytes: 3,
            pause: Duration::ZERO,
        };
        assert_eq!(collect(slow).await.unwrap(), "0123456789");
        let changed = collect(Flow::Corrupt { at: 3 }).await.unwrap();
        assert_eq!(
            (changed.len(), changed[3], changed[4]),
            (10, b'3' ^ 0xff, b'4')
        );
        assert!(
            collect(Flow::Cut {
                after: 4,
                reset: None
            })
            .await
            .is_err()
        );
    }
}
