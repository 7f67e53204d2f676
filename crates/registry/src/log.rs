//! The access log: one entry a request, as an event and optionally as a line of JSON.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as _, Frame, SizeHint};
use serde::Serialize;
use towline_cause::Cause;
use towline_oci::nobodys;

use crate::activity::Turn;
use crate::body::Body;
use crate::metrics::Metrics;
use crate::names::Repository;
use crate::ready::Flight;
use crate::refusal::Refusal;
use crate::refusals::{Refusals, Refused};

/// Where entries go.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<Mutex<File>>,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
}

/// What is written of a request. Paths hold no secrets: the distribution API has none in its queries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// When the request came.
    time: jiff::Timestamp,
    /// The client's address.
    remote: String,
    method: String,
    /// Path and query.
    path: String,
    status: u16,
    /// Bytes of the answer's body that were handed over.
    bytes: u64,
    /// Whether the client took the whole answer.
    complete: bool,
    /// From the request to the end of the answer.
    duration_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The pull attempt that the request belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    /// The code of the distribution specification by which the request was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why the request was refused: the cause that a pull which meets this fails for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// The upstream's own cause, where it is the cache's upstream that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_cause: Option<&'static str>,
    /// Whether somebody asked for what nobody has, to see the refusal: `towline why` does that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    contrast: bool,
    #[serde(skip)]
    client: IpAddr,
    /// The repository that was meant.
    #[serde(skip)]
    repository: Option<Repository>,
    /// What the client was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    internal: Option<String>,
}

impl Entry {
    /// The beginning of an entry.
    pub(crate) fn begin<B>(request: &Request<B>, remote: std::net::SocketAddr) -> Self {
        let header = |name: &str| {
            let value = request.headers().get(name)?.to_str().ok()?;
            Some(value.chars().take(256).collect::<String>())
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        Self {
            time: jiff::Timestamp::now(),
            remote: remote.to_string(),
            method: request.method().to_string(),
            path: path.chars().take(1024).collect(),
            status: 0,
            bytes: 0,
            complete: false,
            duration_millis: 0,
            user: None,
            attempt: header("x-towline-attempt"),
            traceparent: header("traceparent"),
            user_agent: header("user-agent"),
            code: None,
            cause: None,
            upstream_cause: None,
            contrast: false,
            client: remote.ip(),
            repository: None,
            internal: None,
        }
    }

    /// The client's address.
    pub(crate) fn client(&self) -> IpAddr {
        self.client
    }

    /// Who asked.
    pub(crate) fn user(&mut self, user: Option<String>) {
        self.user = user;
    }

    /// Which repository was meant.
    pub(crate) fn repository(&mut self, name: &Repository) {
        self.contrast = nobodys::is_one(name.as_str());
        self.repository = Some(name.clone());
    }

    /// Why it was refused.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.code = Some(refusal.code);
        self.cause = refusal.cause.map(Cause::name);
        self.upstream_cause = refusal.beneath.map(Cause::name);
        self.internal.clone_from(&refusal.internal);
    }
}

impl Log {
    /// A log with a file that is appended to, or without.
    pub(crate) fn open(
        path: Option<&Path>,
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
    ) -> std::io::Result<Self> {
        let file = path
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self {
            file: file.map(Mutex::new),
            metrics,
            refusals,
        })
    }

    /// Lets the entry be written when the answer's body ended.
    pub(crate) fn follow(
        self: &Arc<Self>,
        mut entry: Entry,
        began: Instant,
        answer: Response<Body>,
        (flight, mut turn): (Flight, Turn),
    ) -> Response<Followed> {
        entry.status = answer.status().as_u16();
        let complete = answer.body().is_end_stream() || entry.method == "HEAD";
        entry.complete = complete;
        turn.give(false);
        answer.map(|body| Followed {
            body,
            record: Some((entry, began, Arc::clone(self))),
            _flight: flight,
            turn,
        })
    }

    /// Keeps a refusal for the web page, whose own are of no interest there.
    fn remember(&self, entry: &Entry) {
        let Some(cause) = entry.cause.filter(|_| entry.path.starts_with("/v2")) else {
            return;
        };
        // Nobody wanted to pull it.
        if entry.contrast {
            return;
        }
        // Every push asks in this way what it need not send.
        if entry.method == "HEAD" && entry.status == 404 && entry.path.contains("/blobs/") {
            return;
        }
        self.refusals.note(Refused {
            time: entry.time,
            method: entry.method.clone(),
            path: entry.path.split('?').next().unwrap_or_default().to_owned(),
            status: entry.status,
            cause,
            beneath: entry.upstream_cause,
            user: entry.user.clone(),
            repository: entry.repository.clone(),
            times: 1,
        });
    }

    fn write(&self, entry: &Entry) {
        let cause = entry.cause.filter(|_| !entry.contrast);
        self.metrics
            .request(&entry.method, entry.status, entry.bytes, cause);
        tracing::info!(
            method = entry.method,
            path = entry.path,
            status = entry.status,
            bytes = entry.bytes,
            complete = entry.complete,
            millis = entry.duration_millis,
            user = entry.user,
            attempt = entry.attempt,
            code = entry.code,
            cause = entry.cause,
            upstream_cause = entry.upstream_cause,
            "request"
        );
        self.remember(entry);
        if let Some(internal) = &entry.internal {
            tracing::error!(
                method = entry.method,
                path = entry.path,
                error = internal,
                "request failed"
            );
        }
        let Some(file) = &self.file else { return };
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        let written = file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&line);
        if let Err(error) = written {
            tracing::warn!(%error, "write the access log");
        }
    }
}

/// A body whose end writes the log.
#[derive(Debug)]
pub(crate) struct Followed {
    body: Body,
    record: Option<(Entry, Instant, Arc<Log>)>,
    _flight: Flight,
    turn: Turn,
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let this = &mut *self;
        this.turn.give(polled.is_pending());
        if let Some((entry, _, _)) = &mut this.record {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    // A peer that knows the length may stop asking after the last byte.
                    entry.complete |= this.body.is_end_stream();
                }
                Poll::Ready(None) => entry.complete = true,
                Poll::Ready(Some(Err(error))) => entry.internal = Some(error.to_string()),
                Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some((mut entry, began, log)) = self.record.take() {
            entry.duration_millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            log.write(&entry);
        }
    }
}
