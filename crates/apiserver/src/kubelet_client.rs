//! The API server as a client of kubelets: container logs, over TLS with a client certificate of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::pki::{Authority, KUBELET_CLIENT, PkiError};

/// Bytes of an error answer of a kubelet that are passed on.
const ERROR_BODY: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// What a kubelet is asked.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// Calls kubelets.
#[derive(Clone)]
pub(crate) struct KubeletClient {
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for KubeletClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeletClient").finish_non_exhaustive()
    }
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KubeletClientError {
    /// Its certificate could not be issued.
    #[error("cannot issue the certificate for calls to kubelets")]
    Pki(#[from] PkiError),
    /// TLS refused it.
    #[error("cannot prepare TLS for calls to kubelets")]
    Tls(#[from] rustls::Error),
}

impl KubeletClient {
    pub(crate) fn new(authority: &Authority) -> Result<Self, KubeletClientError> {
        let (certificate, key) = authority
            .client(KUBELET_CLIENT, Some("towline:kubelet-clients"))?
            .der()?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.ca_der()?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        Ok(Self { tls: Arc::new(tls) })
    }

    /// A call to the kubelet at `host:port`, and its answer whatever its status; the body streams until it ends, the client leaves
    /// or `stopping`.
    pub(crate) async fn call(
        &self,
        host: &str,
        port: u16,
        call: Call,
        stopping: CancellationToken,
    ) -> Result<Response<Body>, ApiError> {
        let (method, path) = (call.method, call.path);
        let word = if method == Method::POST {
            "Post"
        } else {
            "Get"
        };
        let failed = |why: String| {
            ApiError::internal(format!("{word} \"https://{host}:{port}{path}\": {why}"))
        };
        let tcp = tokio::time::timeout(CONNECT, TcpStream::connect((host, port)))
            .await
            .map_err(|_| failed("dial: i/o timeout".to_owned()))?
            .map_err(|error| failed(format!("dial tcp: {error}")))?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let tls = tokio::time::timeout(CONNECT, connector.connect(name, tcp))
            .await
            .map_err(|_| failed("TLS handshake timeout".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed(error.to_string()))?;
        towline_sys::task::spawn("kubelet-connection", async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to a kubelet ended");
                },
                () = stopping.cancelled() => {}
            }
        });
        let request = Request::builder()
            .method(method.clone())
            .uri(path.as_str())
            .header(http::header::HOST, format!("{host}:{port}"))
            .body(Body::from(call.body))
            .map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, sender.send_request(request))
            .await
            .map_err(|_| failed("timeout awaiting response headers".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(answer.map(Body::new))
    }

    /// The same, where anything but 200 is an error.
    pub(crate) async fn get(
        &self,
        host: &str,
        port: u16,
        call: Call,
        stopping: CancellationToken,
    ) -> Result<Response<Body>, ApiError> {
        let answer = self.call(host, port, call, stopping).await?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), ERROR_BODY).collect().await;
        let text = body
            .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
            .unwrap_or_default();
        Err(match status {
            StatusCode::BAD_REQUEST => ApiError::bad_request(text),
            StatusCode::NOT_FOUND => ApiError::new(
                404,
                "NotFound",
                format!("the server could not find the requested resource ( {text})"),
            ),
            other => ApiError::internal(format!("the kubelet answered {other}: {text}")),
        })
    }
}
