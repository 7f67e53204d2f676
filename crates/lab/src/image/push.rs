//! Pushing an image over plain HTTP, without any retry: a registry of a test answers or the test fails. Only a connection that was
//! closed while it was idle is opened anew, as every client does.

use std::net::SocketAddr;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::blob::Blob;
use super::builder::Image;

/// The largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry cannot be reached.
    #[error("connecting to {address}")]
    Connect {
        /// The registry.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The request could not be made or its answer not be read.
    #[error("{request}")]
    Http {
        /// Method and path.
        request: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry answered something else than success.
    #[error("{request}: {status}: {body}")]
    Refused {
        /// Method and path.
        request: String,
        /// The status.
        status: StatusCode,
        /// The beginning of the answer's body.
        body: String,
    },
}

impl Image {
    /// Pushes the image and tags it (`tag` may be a digest). `login` is user and password for Basic authentication.
    pub async fn push(
        &self,
        registry: SocketAddr,
        repository: &str,
        tag: &str,
        login: Option<(&str, &str)>,
    ) -> Result<(), PushError> {
        let mut client = Client::connect(registry, login).await?;
        for blob in &self.blobs {
            client.blob(repository, blob).await?;
        }
        for child in &self.children {
            client.manifest(repository, &child.digest, child).await?;
        }
        client.manifest(repository, tag, &self.manifest).await
    }
}

struct Client {
    registry: SocketAddr,
    authorization: Option<HeaderValue>,
    sender: http1::SendRequest<Full<Bytes>>,
    // Drives the connection; ends with the client.
    connection: JoinSet<()>,
}

impl Client {
    async fn connect(registry: SocketAddr, login: Option<(&str, &str)>) -> Result<Self, PushError> {
        let mut tasks = JoinSet::new();
        let sender = open(registry, &mut tasks).await?;
        let authorization = login.map(|(user, password)| {
            let token =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            HeaderValue::from_str(&format!("Basic {token}")).expect("base64 is a header value")
        });
        Ok(Self {
            registry,
            authorization,
            sender,
            connection: tasks,
        })
    }

    async fn blob(&mut self, repository: &str, blob: &Blob) -> Result<(), PushError> {
        let head = self
            .send(
                Method::HEAD,
                &format!("/v2/{repository}/blobs/{}", blob.digest),
                "",
                Bytes::new(),
            )
            .await?;
        if head.status() == StatusCode::OK {
            return Ok(());
        }
        let start = self
            .expect(
                Method::POST,
                &format!("/v2/{repository}/blobs/uploads/"),
                "",
                Bytes::new(),
            )
            .await?;
        let location = start
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        // Relative or absolute: only the path and query matter, the connection is to the same registry.
        let path = location.parse::<http::Uri>().ok();
        let path = path
            .as_ref()
            .and_then(|uri| uri.path_and_query())
            .map_or("/", |path| path.as_str());
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", blob.digest);
        self.expect(
            Method::PUT,
            &path,
            "application/octet-stream",
            blob.bytes.clone(),
        )
        .await?;
        Ok(())
    }

    async fn manifest(
        &mut self,
        repository: &str,
        reference: &str,
        manifest: &Blob,
    ) -> Result<(), PushError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.expect(
            Method::PUT,
            &path,
            &manifest.media_type,
            manifest.bytes.clone(),
        )
        .await?;
        Ok(())
    }

    async fn expect(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, PushError> {
        let request = format!("{method} {path}");
        let answer = self.send(method, path, kind, body).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let body = String::from_utf8_lossy(answer.body())
            .chars()
            .take(500)
            .collect();
        Err(PushError::Refused {
            request,
            status: answer.status(),
            body,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, PushError> {
        let name = format!("{method} {path}");
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PushError::Http {
            request: name.clone(),
            source,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.registry.to_string());
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(error.into()))?;
        let mut sent = self.try_send(request.clone()).await;
        // Nothing of the request was sent on a connection that was closed before.
        if sent
            .as_ref()
            .is_err_and(|error| error.is_closed() || error.is_canceled())
        {
            self.sender = open(self.registry, &mut self.connection).await?;
            sent = self.try_send(request).await;
        }
        let answer = sent.map_err(|error| failed(error.into()))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(failed)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// Opens a connection; `tasks` drives it.
async fn open(
    registry: SocketAddr,
    tasks: &mut JoinSet<()>,
) -> Result<http1::SendRequest<Full<Bytes>>, PushError> {
    let stream = TcpStream::connect(registry).await;
    let stream = stream.map_err(|source| PushError::Connect {
        address: registry,
        source,
    })?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| PushError::Http {
        request: "handshake".to_owned(),
        source: error.into(),
    })?;
    tasks.spawn(async move {
        // The sender reports the same error to whoever waits for an answer.
        connection.await.ok();
    });
    Ok(sender)
}
