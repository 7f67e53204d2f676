//! Watches: newline-delimited events from the store's ring, each watcher at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Context;
use super::list::{Filter, too_large};
use super::reply;
use crate::error::{ApiError, ApiResult};
use crate::request::{Form, accepted};
use crate::storage::{Change, Event};
use crate::table;

/// Changes taken from the ring in one go.
const BATCH: usize = 256;
/// Ends an idle watch at the latest after this plus up to as much again.
const DEFAULT_TIMEOUT: u64 = 1800;
/// The longest a client may ask for.
const MAX_TIMEOUT: u64 = 24 * 3600;

/// One open watch.
struct Watch {
    context: Context,
    filter: Filter,
    form: Form,
    prefix: String,
    /// Changes up to this revision have been sent or filtered.
    position: u64,
    /// Events ready to be sent.
    ready: VecDeque<Value>,
    bookmarks: bool,
    /// The bookmark that ends the initial events is still to come.
    initial: bool,
    columns_sent: bool,
    ended: bool,
    deadline: Instant,
    next_bookmark: Instant,
    revisions: tokio::sync::watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

/// Opens a watch.
pub(super) fn serve(context: Context) -> ApiResult<Response> {
    let form = accepted(&context.headers)?;
    let filter = Filter::of(&context)?;
    let kind = context.target.kind;
    let query = &context.query;
    let initial = query.flag("sendInitialEvents");
    let bookmarks = query.flag("allowWatchBookmarks");
    match (
        query.get("resourceVersionMatch"),
        query.get("sendInitialEvents"),
    ) {
        (Some("NotOlderThan"), Some(_)) | (None, None) => {}
        (None, Some(_)) => {
            return Err(ApiError::invalid_options(
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        (Some(_), _) => {
            return Err(ApiError::invalid_options(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
    }
    let version = query.number("resourceVersion")?;
    let timeout = query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let timeout = timeout
        .unwrap_or_else(|| fastrand::u64(DEFAULT_TIMEOUT..=2 * DEFAULT_TIMEOUT))
        .min(MAX_TIMEOUT);
    let permit = Arc::clone(&context.app.watches)
        .try_acquire_owned()
        .map_err(|_| ApiError::new(429, "TooManyRequests", "too many watches are open"))?;
    let app = Arc::clone(&context.app);
    let prefix = kind.prefix(context.target.namespace.as_deref());
    let revisions = app.store.subscribe();
    let newest = app.store.revision();
    if version.is_some_and(|version| version > newest) {
        return Err(too_large(version.unwrap_or_default(), newest));
    }
    let now = Instant::now();
    let mut watch = Watch {
        filter,
        form,
        prefix,
        position: version.unwrap_or(0),
        ready: VecDeque::new(),
        bookmarks,
        initial: initial && bookmarks,
        columns_sent: false,
        ended: false,
        deadline: now + Duration::from_secs(timeout),
        next_bookmark: now + app.limits.bookmark,
        revisions,
        _permit: permit,
        context,
    };
    let from_state = initial || (watch.position == 0 && query_wants_state(&watch.context));
    if from_state {
        watch.start_with_state()?;
    }
    watch.advance();
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), watch))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    Ok(response)
}

/// Without a revision a watch begins with the state, unless the client says that it wants none of it.
fn query_wants_state(context: &Context) -> bool {
    context
        .query
        .get("sendInitialEvents")
        .is_none_or(|value| value != "false")
}

impl Watch {
    fn start_with_state(&mut self) -> ApiResult<()> {
        let (objects, revision) = self
            .context
            .app
            .store
            .list(&self.prefix, None)
            .map_err(|_| ApiError::internal("the newest revision is not there"))?;
        for (_, stored) in objects {
            if self.filter.matches(&self.context, &stored.value) {
                let event = self.render("ADDED", &stored.value);
                self.ready.push_back(event);
            }
        }
        self.position = revision;
        if self.initial {
            let bookmark = self.bookmark(true);
            self.ready.push_back(bookmark);
            self.initial = false;
        }
        Ok(())
    }

    /// Takes what the ring has for this watch.
    fn advance(&mut self) {
        // Without the state and without a revision, only what comes from now on.
        if self.position == 0 {
            self.position = self.context.app.store.revision();
        }
        match self
            .context
            .app
            .store
            .changes(&self.prefix, self.position, BATCH)
        {
            Ok((events, position)) => {
                for event in events {
                    self.take(&event);
                }
                self.position = position;
            }
            Err(expired) => {
                let message = format!(
                    "too old resource version: {} ({})",
                    self.position, expired.oldest
                );
                self.ready.push_back(
                    json!({"type": "ERROR", "object": ApiError::expired(message).status()}),
                );
                self.ended = true;
            }
        }
    }

    /// With a selector, an object that comes to match is added, one that stops to match is deleted.
    fn take(&mut self, event: &Event) {
        let before = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.filter.matches(&self.context, &previous.value));
        let after =
            event.change != Change::Deleted && self.filter.matches(&self.context, &event.value);
        let name = match (before, after) {
            (false, false) => return,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        let rendered = if name == "DELETED" && event.change != Change::Deleted {
            // It left the selection: its last state inside, at the revision of the change.
            let mut last = event
                .previous
                .as_ref()
                .map(|previous| Value::clone(&previous.value))
                .unwrap_or_default();
            last["metadata"]["resourceVersion"] = json!(event.revision.to_string());
            self.render(name, &last)
        } else {
            self.render(name, &event.value)
        };
        self.ready.push_back(rendered);
    }

    fn render(&mut self, name: &str, stored: &Value) -> Value {
        let kind = self.context.target.kind;
        let object = kind.present(stored);
        let object = match self.form {
            Form::Table => {
                let row = table::row(kind, &object, table::Include::of(&self.context.query));
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                table::table(kind, &[row], &metadata, columns)
            }
            Form::Partial => reply::partial(&object),
            Form::Json | Form::Discovery(_) => object,
        };
        json!({"type": name, "object": object})
    }

    fn bookmark(&mut self, initial_end: bool) -> Value {
        let kind = self.context.target.kind;
        let mut metadata =
            json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        let object = match self.form {
            Form::Table => {
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let row = json!({"cells": [], "object": reply::partial(&object)});
                table::table(
                    kind,
                    &[row],
                    &json!({"resourceVersion": self.position.to_string()}),
                    columns,
                )
            }
            Form::Partial => reply::partial(&object),
            Form::Json | Form::Discovery(_) => object,
        };
        json!({"type": "BOOKMARK", "object": object})
    }

    /// The next bytes of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                let mut out = Vec::new();
                while let Some(event) = self.ready.pop_front() {
                    out.extend_from_slice(event.to_string().as_bytes());
                    out.push(b'\n');
                    if out.len() > 256 << 10 {
                        break;
                    }
                }
                return Some(Bytes::from(out));
            }
            if self.ended {
                return None;
            }
            self.advance();
            if !self.ready.is_empty() {
                continue;
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let stopping = self.context.app.stopping.clone();
        let app = Arc::clone(&self.context.app);
        let _open = app.metrics.watch();
        tokio::select! {
            changed = self.revisions.changed() => {
                self.ended = changed.is_err();
            }
            () = tokio::time::sleep_until(self.next_bookmark.min(self.deadline)) => {
                let now = Instant::now();
                self.ended = now >= self.deadline;
                if self.bookmarks {
                    self.advance();
                    let bookmark = self.bookmark(false);
                    self.ready.push_back(bookmark);
                }
                self.next_bookmark = now + app.limits.bookmark;
            }
            () = stopping.cancelled() => self.ended = true,
        }
    }
}
