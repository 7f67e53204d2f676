//! A refusal: what the client is told, and separately what is logged.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};
use towline_cause::Cause;

use crate::body::{Body, full};
use crate::names::Repository;
use crate::quota::OverQuota;
use crate::storage::StorageError;

/// Characters of a message in a status line; enough for that of an upstream's trouble with its ending.
const REASON: usize = 1000;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// The code of the distribution specification.
    pub(crate) code: &'static str,
    /// The sentence for the client.
    pub(crate) message: String,
    /// The detail for the client.
    pub(crate) detail: Option<Box<Value>>,
    /// Why a pull that meets this fails.
    pub(crate) cause: Option<Cause>,
    /// The upstream's own cause, where it is the cache's upstream that failed.
    pub(crate) beneath: Option<Cause>,
    /// More headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What only the log is told.
    pub(crate) internal: Option<String>,
}

impl Refusal {
    /// A refusal with a status, a code and a sentence.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            cause: None,
            beneath: None,
            headers: Vec::new(),
            internal: None,
        }
    }

    /// The cause that a pull which meets this fails for.
    pub(crate) fn cause(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// What was asked for, for machines.
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    /// Another header.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// What stands behind the status in an answer of HTTP/1. Where it is this registry or an upstream that fails, it says why: an answer to
    /// HEAD has no body, and containerd, which asks by HEAD first, shows its user this line and nothing else.
    fn reason(&self) -> Option<ReasonPhrase> {
        let fails = self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS;
        let usual = self.status.canonical_reason().filter(|_| fails)?;
        self.cause?;
        let words = self.message.chars().take(REASON);
        let words = words.map(|letter| match letter {
            ' '..='~' => letter,
            _ => '?',
        });
        ReasonPhrase::try_from(format!("{usual}: {}", words.collect::<String>())).ok()
    }

    /// The answer.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(detail) = &self.detail {
            error["detail"] = (**detail).clone();
        }
        let mut response = Response::new(full(json!({"errors": [error]}).to_string()));
        *response.status_mut() = self.status;
        if let Some(reason) = self.reason() {
            response.extensions_mut().insert(reason);
        }
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        response
    }
}

/// The refusal of a change where another registry writes.
pub(crate) fn not_writer(writer: Option<&str>) -> Refusal {
    let message = match writer {
        Some(writer) => format!("this registry only serves; push to {writer}"),
        None => "this registry only serves, and there is no writer at the moment".to_owned(),
    };
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
    refusal.detail(json!({"writer": writer}))
}

/// A request that is wrong in itself: 400.
pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}

/// Something that is not there: 404.
pub(crate) fn missing(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, code, message)
}

impl From<&OverQuota> for Refusal {
    fn from(over: &OverQuota) -> Self {
        // One repository's is a matter between it and this registry, that of all is a disk that is as good as full.
        let status = match over.repository {
            Some(_) => StatusCode::FORBIDDEN,
            None => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, "DENIED", over.to_string())
            .cause(Cause::QuotaExceeded)
            .detail(json!({
                "repository": over.repository.as_ref().map(Repository::as_str),
                "limit": over.limit,
                "used": over.used,
                "more": over.more,
            }))
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        let (status, code, message, cause) = match &error {
            StorageError::DigestMismatch { expected, actual } => {
                let message = format!("the content's digest is {actual}, not {expected}");
                return bad("DIGEST_INVALID", message)
                    .detail(json!({"expected": expected.to_string()}));
            }
            StorageError::NotWriter { writer } => {
                return not_writer(writer.as_deref());
            }
            StorageError::Remote { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UNKNOWN",
                "the registry's storage failed",
                Cause::RegistryError,
            ),
            StorageError::OverQuota(over) => return over.into(),
            StorageError::Fs(error) if error.is_no_space() => (
                StatusCode::INSUFFICIENT_STORAGE,
                "UNKNOWN",
                "the registry's disk is full",
                Cause::RegistryError,
            ),
            StorageError::Fs(_) | StorageError::Corrupt { .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                "the registry's storage failed",
                Cause::RegistryError,
            ),
        };
        let internal = towline_sys::task::chain(&error);
        Self {
            internal: Some(internal),
            ..Self::new(status, code, message).cause(cause)
        }
    }
}
