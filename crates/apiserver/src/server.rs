//! Connections: TLS, the client's certificate, HTTP/1.1 and HTTP/2 on one port.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::auth::{Caller, Peer};
use crate::handlers;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// Requests that one HTTP/2 connection may have open, watches included.
const STREAMS: u32 = 1000;

/// Accepts on one address until the server stops; then waits for the open connections to end.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Arc<Semaphore>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = app.stopping.cancelled() => break,
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let stream = tokio::select! {
            () = app.stopping.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors, most likely: give the others time to close.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let watcher = graceful.watcher();
        let (app, acceptor) = (Arc::clone(&app), acceptor.clone());
        towline_sys::task::spawn("apiserver-connection", async move {
            if let Err(error) = connection(app, stream, &acceptor, watcher).await {
                tracing::debug!(error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn connection(
    app: Arc<App>,
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String> {
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let tls = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let caller = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| Caller::from_certificate(certificate));
    let peer = Peer { caller };
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(app.limits.headers.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(app.limits.headers).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, peer) = (Arc::clone(&app), peer.clone());
        async move {
            Ok::<_, std::convert::Infallible>(
                handlers::answer(app, peer, request.map(Body::new)).await,
            )
        }
    });
    let connection = builder
        .serve_connection(TokioIo::new(tls), service)
        .into_owned();
    watcher
        .watch(connection)
        .await
        .map_err(|error| error.to_string())
}
