//! Bodies of answers.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::cache::Serving;
use crate::sendfile::{Lane, Sent};

/// Bytes read from disk at a time.
const CHUNK: usize = 256 << 10;

/// The body of an answer, and what of the cache must stay as long as it is sent.
#[derive(Debug)]
pub(crate) struct Body(Kind, Option<Serving>);

#[derive(Debug)]
enum Kind {
    Full(Full<Bytes>),
    Stream(UnsyncBoxBody<Bytes, io::Error>),
    /// The next so many bytes of a file, which nobody asked for yet.
    File(Option<File>, u64),
    /// The same, by a connection to which the kernel copies it.
    Sent(Sent),
}

impl Body {
    /// A body that comes piece by piece.
    pub(crate) fn stream(
        body: impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static,
    ) -> Self {
        Self(Kind::Stream(body.boxed_unsync()), None)
    }

    /// The same body for a connection that files can be sent to without being read.
    pub(crate) fn by(self, lane: &Lane) -> Self {
        let kind = match self.0 {
            Kind::File(Some(file), length) => Kind::Sent(Sent::new(file, length, lane)),
            kind => kind,
        };
        Self(kind, self.1)
    }

    /// The same body, which holds on to something until it is sent.
    pub(crate) fn holding(self, serving: Serving) -> Self {
        Self(self.0, Some(serving))
    }
}

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Body(Kind::Full(Full::new(bytes.into())), None)
}

/// The next `length` bytes of a file.
pub(crate) fn file(file: File, length: u64) -> Body {
    Body(Kind::File(Some(file), length), None)
}

fn read(file: File, length: u64) -> UnsyncBoxBody<Bytes, io::Error> {
    let reader = tokio::fs::File::from_std(file).take(length);
    let chunk = usize::try_from(length).unwrap_or(CHUNK).clamp(1, CHUNK);
    StreamBody::new(ReaderStream::with_capacity(reader, chunk).map_ok(Frame::data)).boxed_unsync()
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Kind::File(file, length) = &mut self.0
            && let Some(file) = file.take()
        {
            self.0 = Kind::Stream(read(file, *length));
        }
        match &mut self.0 {
            Kind::Full(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never: Infallible| match never {}),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
            Kind::File(..) => Poll::Ready(None),
            Kind::Sent(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
            Kind::File(_, length) => *length == 0,
            Kind::Sent(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(body) => body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
            Kind::File(_, length) => SizeHint::with_exact(*length),
            Kind::Sent(body) => body.size_hint(),
        }
    }
}
