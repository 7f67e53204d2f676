//! Bodies of answers.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

/// Bytes read from disk at a time.
const CHUNK: usize = 256 << 10;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// The next `length` bytes of a file.
pub(crate) fn file(file: std::fs::File, length: u64) -> Body {
    let reader = tokio::fs::File::from_std(file).take(length);
    let chunk = usize::try_from(length).unwrap_or(CHUNK).clamp(1, CHUNK);
    StreamBody::new(ReaderStream::with_capacity(reader, chunk).map_ok(Frame::data)).boxed_unsync()
}
