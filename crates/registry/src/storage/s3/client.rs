//! The few requests of S3 that are needed. They are signed by `rusty-s3`; connections are this process's ordinary ones.
//!
//! A signed address is a key for some minutes: none gets into an error or a log, which name the object alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};

use super::checksum::{Checksum, checksummed};
use super::options::{S3Error, S3Options};
use crate::body::{self, Body};
use crate::storage::StorageError;

/// How long a signed address is good.
pub(super) const SIGNED: Duration = Duration::from_secs(900);
/// How long the head of an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may take to be made.
const CONNECTS: Duration = Duration::from_secs(5);
/// Attempts at one request.
pub(super) const ATTEMPTS: u32 = 5;
/// Names in one list, in all.
const LISTED: usize = 10_000_000;
/// The largest answer that is read into memory besides objects, in bytes.
const ANSWER: usize = 16 << 20;

/// What a conditional request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is written, with this tag.
    Done(String),
    /// The condition does not hold.
    Refused,
}

/// When an object may be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum If<'a> {
    /// In any case.
    Always,
    /// Where there is none of this name.
    Absent,
    /// Where the one of this name has this tag.
    Is(&'a str),
}

/// An object that was found, or listed.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    /// When it was written last.
    pub(super) at: Option<jiff::Timestamp>,
}

/// A bucket, or the part of one that begins with a prefix. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    pub(super) bucket: Bucket,
    prefix: String,
    pub(super) credentials: Credentials,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("bucket", &self.0.bucket.name())
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}

pub(super) fn failed(what: &'static str, key: &str, why: impl std::fmt::Display) -> StorageError {
    StorageError::Remote {
        what,
        key: key.to_owned(),
        why: why.to_string(),
    }
}

/// The code that S3 gives in the body of an error.
pub(super) fn said(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code
        .map(|(code, _)| code)
        .filter(|code| code.len() < 64 && code.chars().all(|char| char.is_ascii_alphanumeric()));
    match code {
        Some(code) => format!("{status}, {code}"),
        None => status.to_string(),
    }
}

impl Client {
    pub(super) fn new(options: &S3Options) -> Result<Self, S3Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for pem in &options.ca_pem {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let wrong = |why: &dyn std::fmt::Display| {
                    S3Error::Tls(format!("the certificate authority: {why}"))
                };
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| S3Error::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECTS));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        let style = if options.is_path_style {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let endpoint = options.endpoint()?;
        let bucket = Bucket::new(
            endpoint,
            style,
            options.bucket.clone(),
            options.region.clone(),
        );
        let bucket = bucket.map_err(|error| S3Error::Endpoint(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            http,
            bucket,
            prefix: options.prefix.clone(),
            credentials: options.credentials.clone(),
        })))
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// Sends a request until it is answered with something that another try would not change.
    pub(super) async fn send(
        &self,
        what: &'static str,
        name: &str,
        request: impl Fn() -> Request<Body>,
    ) -> Result<Response<Incoming>, StorageError> {
        let mut wait = Duration::from_millis(100);
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
                wait *= 3;
            }
            let sent = tokio::time::timeout(PATIENCE, self.0.http.request(request())).await;
            match sent {
                Ok(Ok(answer)) => {
                    let status = answer.status();
                    let again = status.is_server_error()
                        || status == StatusCode::TOO_MANY_REQUESTS
                        || status == StatusCode::REQUEST_TIMEOUT
                        // Two conditional writes met: which of them was first shows the next try.
                        || status == StatusCode::CONFLICT;
                    if !again {
                        return Ok(answer);
                    }
                    why = said(status, &small(answer).await.unwrap_or_default());
                }
                // The error may hold the address: its kind is enough.
                Ok(Err(error)) if error.is_connect() => "no connection".clone_into(&mut why),
                Ok(Err(_)) => "the connection broke".clone_into(&mut why),
                Err(_) => "no answer in time".clone_into(&mut why),
            }
        }
        Err(failed(what, name, format!("{why} ({ATTEMPTS} attempts)")))
    }

    pub(super) fn request(method: Method, url: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // What was just built as an address is one.
        *request.uri_mut() = url.parse().unwrap_or_default();
        request
    }

    /// The bytes of an object and its tag, if it is there and not larger than this.
    pub(super) async fn get(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Option<(Bytes, String)>, StorageError> {
        let what = "read";
        let key = self.key(name);
        for attempt in 0..ATTEMPTS {
            let make = || {
                let action = self.0.bucket.get_object(Some(&self.0.credentials), &key);
                Self::request(Method::GET, action.sign(SIGNED).as_str(), body::full(""))
            };
            let answer = self.send(what, name, make).await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                status => {
                    let body = small(answer).await.unwrap_or_default();
                    return Err(failed(what, name, said(status, &body)));
                }
            }
            let tag = etag(answer.headers());
            match Limited::new(answer.into_body(), limit).collect().await {
                Ok(bytes) => return Ok(Some((bytes.to_bytes(), tag))),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(failed(what, name, format!("more than {limit} bytes")));
                }
                Err(_) if attempt + 1 < ATTEMPTS => {}
                Err(_) => break,
            }
        }
        Err(failed(what, name, "the answer broke off"))
    }

    /// A part of an object as it comes.
    pub(super) async fn part(
        &self,
        name: &str,
        from: u64,
        to: u64,
    ) -> Result<Incoming, StorageError> {
        let key = self.key(name);
        let make = || {
            let action = self.0.bucket.get_object(Some(&self.0.credentials), &key);
            let url = action.sign(SIGNED);
            let mut request = Self::request(Method::GET, url.as_str(), body::full(""));
            let range = format!("bytes={from}-{}", to.saturating_sub(1));
            if let Ok(range) = range.parse() {
                request.headers_mut().insert(header::RANGE, range);
            }
            request
        };
        let answer = self.send("read", name, make).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => Ok(answer.into_body()),
            StatusCode::OK if from == 0 => Ok(answer.into_body()),
            status => {
                let body = small(answer).await.unwrap_or_default();
                Err(failed("read", name, said(status, &body)))
            }
        }
    }

    /// Writes an object.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        condition: If<'_>,
    ) -> Result<Put, StorageError> {
        let key = self.key(name);
        let checksum = Checksum::of(&bytes);
        let make = || {
            let action = self.0.bucket.put_object(Some(&self.0.credentials), &key);
            let url = action.sign(SIGNED);
            let mut request = Self::request(Method::PUT, url.as_str(), body::full(bytes.clone()));
            checksummed(&mut request, &checksum);
            let condition = match condition {
                If::Always => None,
                If::Absent => Some((header::IF_NONE_MATCH, "*")),
                If::Is(tag) => Some((header::IF_MATCH, tag)),
            };
            if let Some((name, value)) = condition
                && let Ok(value) = value.parse()
            {
                request.headers_mut().insert(name, value);
            }
            request
        };
        let answer = self.send("write", name, make).await?;
        match answer.status() {
            StatusCode::OK => Ok(Put::Done(etag(answer.headers()))),
            StatusCode::PRECONDITION_FAILED => Ok(Put::Refused),
            // An object with a tag to match that is gone.
            StatusCode::NOT_FOUND if matches!(condition, If::Is(_)) => Ok(Put::Refused),
            status => {
                let body = small(answer).await.unwrap_or_default();
                Err(failed("write", name, said(status, &body)))
            }
        }
    }

    /// Takes an object away, if it is there.
    pub(super) async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let key = self.key(name);
        let make = || {
            let action = self.0.bucket.delete_object(Some(&self.0.credentials), &key);
            Self::request(Method::DELETE, action.sign(SIGNED).as_str(), body::full(""))
        };
        let answer = self.send("delete", name, make).await?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let body = small(answer).await.unwrap_or_default();
        Err(failed("delete", name, said(status, &body)))
    }

    /// The objects whose names begin with this, sorted, those after `after` alone; at most so many.
    pub(super) async fn list(
        &self,
        start: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Listed>, StorageError> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        let (prefix, after) = (self.key(start), after.map(|after| self.key(after)));
        loop {
            let make = || {
                let credentials = Some(&self.0.credentials);
                let mut action = self.0.bucket.list_objects_v2(credentials);
                action.with_prefix(prefix.as_str());
                action.with_max_keys(most.min(1000));
                if let Some(after) = &after {
                    action.with_start_after(after.as_str());
                }
                if let Some(token) = &token {
                    action.with_continuation_token(token.as_str());
                }
                Self::request(Method::GET, action.sign(SIGNED).as_str(), body::full(""))
            };
            let answer = self.send("list", start, make).await?;
            let status = answer.status();
            let body = small(answer).await?;
            if status != StatusCode::OK {
                return Err(failed("list", start, said(status, &body)));
            }
            let text = String::from_utf8_lossy(&body);
            let page = ListObjectsV2::parse_response(&text);
            let page = page.map_err(|error| failed("list", start, error))?;
            found.extend(page.contents.into_iter().filter_map(|one| {
                let key = one.key.strip_prefix(&self.0.prefix)?.to_owned();
                let at = one.last_modified.and_then(|at| at.parse().ok());
                Some(Listed { key, at })
            }));
            token = page.next_continuation_token;
            if token.is_none() || found.len() >= most.min(LISTED) {
                found.truncate(most);
                return Ok(found);
            }
        }
    }
}

pub(super) fn etag(headers: &HeaderMap) -> String {
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    tag.unwrap_or_default().to_owned()
}

/// A body that is no object.
pub(super) async fn small(answer: Response<Incoming>) -> Result<Bytes, StorageError> {
    let mut body = Limited::new(answer.into_body(), ANSWER);
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        match frame {
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data() {
                    bytes.extend_from_slice(&piece);
                }
            }
            Ok(Some(Err(_))) | Err(_) => {
                return Err(failed("read", "an answer", "it broke off"));
            }
        }
    }
}
