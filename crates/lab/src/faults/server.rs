//! An HTTP/1.1 server of the lab: plain or TLS, whose connections can end by a reset.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A body that may fail in the middle, which cuts the connection.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// How a connection is to end: set to reset it instead of closing it.
#[derive(Clone, Debug)]
pub(crate) struct Ending(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    reset: AtomicBool,
    /// The connection's socket, to ask it what has arrived.
    socket: io::Result<OwnedFd>,
}

/// A peer that reads nothing is not waited for longer.
const UNREAD: Duration = Duration::from_secs(10);

impl Ending {
    fn of(stream: &TcpStream) -> Self {
        Self(Arc::new(Connection {
            reset: AtomicBool::new(false),
            socket: stream.as_fd().try_clone_to_owned(),
        }))
    }

    /// From now on the end of the connection is a reset. Before that everything written so far reaches the peer, which a reset would
    /// destroy: what is cut after so many bytes is cut there, however slowly they are read.
    pub(crate) async fn reset(&self) {
        // Looked at more than once: the server may have some that it writes as soon as there is room, which it does while this waits.
        let mut empty = 0;
        let begun = Instant::now();
        while empty < 3
            && begun.elapsed() < UNREAD
            && let Ok(socket) = &self.0.socket
            && let Ok(unconfirmed) = towline_sys::socket::unconfirmed(socket)
        {
            empty = if unconfirmed == 0 { empty + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.0.reset.store(true, Ordering::Relaxed);
    }

    fn is_reset(&self) -> bool {
        self.0.reset.load(Ordering::Relaxed)
    }
}

struct Stream {
    inner: TcpStream,
    ending: Ending,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.ending.is_reset() {
            // Without it the peer sees a close instead of a reset: a lesser fault, nothing to repair.
            self.inner.set_zero_linger().ok();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_reset() {
            // A FIN before the reset would turn it into a close.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Accepts connections for ever; every request goes to `handler`. An error of the handler ends the connection.
pub(crate) async fn serve<H, F>(listener: TcpListener, tls: Option<Arc<ServerConfig>>, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr, Ending) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let (handler, tls) = (handler.clone(), tls.clone());
        connections.spawn(async move {
            let ending = Ending::of(&stream);
            let stream = Stream {
                inner: stream,
                ending: ending.clone(),
            };
            let service = service_fn(move |request| handler(request, peer, ending.clone()));
            let http = hyper::server::conn::http1::Builder::new();
            // A connection that ends in an error is what the lab is for.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(config) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await
                    {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}
