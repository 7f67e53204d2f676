//! The node's endpoint: logs of containers, pods, metrics, health. Everything but health asks who is there.

mod auth;
pub(crate) mod cri_log;
mod logs;
pub(crate) mod replay;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::debug;

use self::auth::{Access, Authorizer, Certified};
use crate::agent::Agent;
use crate::options::{Error, Serving};
use crate::workers::Workers;

const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);

/// A bound endpoint.
pub(crate) struct Server {
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    address: SocketAddr,
    replays: replay::Replays,
}

#[derive(Clone)]
struct Shared {
    agent: Arc<Agent>,
    workers: Arc<Workers>,
    replays: Arc<replay::Replays>,
}

impl Server {
    /// Binds the address.
    pub(crate) async fn bind(
        listen: SocketAddr,
        serving: &Serving,
        names: &[String],
        replay: Option<crate::replay::Replay>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            tls: tls::config(serving, names)?,
            address,
            replays: replay::Replays::new(replay),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub(crate) async fn run(
        self,
        agent: Arc<Agent>,
        workers: Arc<Workers>,
        client: kube::Client,
        stop: CancellationToken,
    ) {
        let authorizer = Authorizer {
            client,
            node: agent.settings.node_name.clone(),
        };
        let shared = Shared {
            agent,
            workers,
            replays: Arc::new(self.replays),
        };
        let router = router(shared, authorizer);
        let acceptor = tokio_rustls::TlsAcceptor::from(self.tls);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "accept fails");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            drop(towline_sys::task::spawn("node-connection", async move {
                tokio::select! {
                    () = connection(stream, &acceptor, router) => {}
                    () = stop.cancelled() => {}
                }
                debug!(%peer, "connection ended");
            }));
        }
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    acceptor: &tokio_rustls::TlsAcceptor,
    router: Router,
) {
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let certified = shown
        .map(|certificate| Certified::of(certificate))
        .unwrap_or_default();
    let service = router
        .layer(Extension(certified))
        .map_request(|request: http::Request<hyper::body::Incoming>| request.map(Body::new));
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        debug!(error, "connection fails");
    }
}

fn router(shared: Shared, authorizer: Authorizer) -> Router {
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(container_logs),
        )
        .route("/pods", get(pods))
        .route("/metrics", get(metrics))
        .route(replay::PATH, post(replay::serve))
        .layer(middleware::from_fn_with_state(authorizer, authorize))
        .route("/healthz", get(async || "ok"))
        .with_state(shared)
}

async fn authorize(State(authorizer): State<Authorizer>, request: Request, next: Next) -> Response {
    let certified = request
        .extensions()
        .get::<Certified>()
        .cloned()
        .unwrap_or_default();
    let path = request.uri().path();
    let subresource = if path.starts_with("/containerLogs/") {
        "log"
    } else if path.starts_with("/metrics") {
        "metrics"
    } else {
        "proxy"
    };
    let value = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    let token = value
        .and_then(|v| v.strip_prefix("Bearer "))
        .map(str::to_owned);
    let verb = auth::verb(request.method());
    let mut access = authorizer
        .check(certified.clone(), token.as_deref(), (verb, subresource))
        .await;
    if access == Access::Forbidden && subresource != "proxy" {
        let proxy = (verb, "proxy");
        access = authorizer.check(certified, token.as_deref(), proxy).await;
    }
    match access {
        Access::Allowed => next.run(request).await,
        Access::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Access::Forbidden => (StatusCode::FORBIDDEN, "Forbidden").into_response(),
    }
}

async fn container_logs(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<logs::Query>,
) -> Response {
    let Some(found) = shared.workers.find(&namespace, &pod) else {
        return (StatusCode::NOT_FOUND, format!("pod {pod:?} not found")).into_response();
    };
    let container = if container.is_empty() {
        logs::default_container(&found).unwrap_or_default()
    } else {
        container
    };
    let file = match logs::file(&shared.agent, &found, &container, query.is_previous()) {
        Ok(file) => file,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let (sender, receiver) = mpsc::channel(16);
    let send = logs::send(shared.agent, found, container, file, query, sender);
    drop(towline_sys::task::spawn("container-log", send));
    let pieces = futures::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    let headers = [(header::CONTENT_TYPE, "text/plain")];
    (headers, Body::from_stream(pieces)).into_response()
}

async fn pods(State(shared): State<Shared>) -> Response {
    let items: Vec<_> = shared
        .workers
        .pods()
        .iter()
        .map(|pod| pod.as_ref().clone())
        .collect();
    Json(serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let pods = shared.workers.pods().len();
    let text = shared
        .agent
        .metrics
        .render(pods, !shared.agent.settings.exact);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
