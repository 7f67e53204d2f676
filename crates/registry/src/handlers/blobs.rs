//! Blobs: whole or in part.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use towline_cause::Cause;
use towline_oci::Digest;

use super::{Answer, Registry, empty, text_header};
use crate::body::{Body, full};
use crate::names::Repository;
use crate::range::{Wanted, wanted};
use crate::refusal::{Refusal, missing};
use crate::storage::Content;

impl Registry {
    pub(crate) async fn get_blob(
        self: &Arc<Self>,
        request: &Request<Incoming>,
        name: Repository,
        digest: Digest,
    ) -> Answer {
        if request.method() == Method::HEAD {
            let (_, total) = self.find_blob(name, digest.clone(), true).await?;
            return Ok(blob_answer(&digest, Part::whole(total), full("")));
        }
        // A blob that is asked for again and again needs no other thread.
        let found = match self.blob_at_once(&name, &digest) {
            Some(found) => found,
            None => self.find_blob(name, digest.clone(), false).await?,
        };
        blob_in(request, &digest, found)
    }

    /// The blob, where the disk need not be waited for. Does not block.
    pub(crate) fn blob_at_once(
        &self,
        name: &Repository,
        digest: &Digest,
    ) -> Option<(Content, u64)> {
        if !self.metadata.has_blob_at_once(name, digest) {
            return None;
        }
        self.blobs.open_at_once(digest)
    }

    /// The blob, for reading; touched where it is only looked for, since whoever finds it does not push it, and may name it soon.
    async fn find_blob(
        self: &Arc<Self>,
        name: Repository,
        digest: Digest,
        touch: bool,
    ) -> Result<(Content, u64), Refusal> {
        self.blocking("open a blob", move |this| {
            let linked = this.metadata.has_blob(&name, &digest)?;
            if linked && touch {
                let _adding = this.gate.adding();
                this.metadata.touch_blob(&name, &digest)?;
            }
            let found = if linked {
                this.blobs.open(&digest)?
            } else {
                None
            };
            found.ok_or_else(|| {
                let mut unknown = unknown(&digest);
                if linked {
                    unknown.internal = Some(format!("{name} holds {digest}, whose bytes are gone"));
                }
                this.absent(&name, unknown)
            })
        })
        .await
    }

    pub(super) async fn delete_blob(self: &Arc<Self>, name: Repository, digest: Digest) -> Answer {
        self.blocking("unlink a blob", move |this| {
            if this.metadata.unlink_blob(&name, &digest)? {
                this.quotas.forget(&name);
                return Ok(());
            }
            Err(this.absent(&name, unknown(&digest)))
        })
        .await?;
        Ok(empty(StatusCode::ACCEPTED, &[]))
    }
}

/// The answer with what a request wants of a blob.
pub(crate) fn blob_in(
    request: &Request<Incoming>,
    digest: &Digest,
    (content, total): (Content, u64),
) -> Answer {
    let part = match wanted(text_header(request, &header::RANGE), total) {
        Wanted::Whole => Part::whole(total),
        Wanted::Part(from, to) => Part::of(from, to, total),
        Wanted::Unsatisfiable => return Err(Part::unsatisfiable(total)),
    };
    let body = content.body(part.from, part.to - part.from);
    let body = body.map_err(|error| Refusal {
        internal: Some(error.to_string()),
        ..Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN",
            "the registry's storage failed",
        )
    })?;
    Ok(blob_answer(digest, part, body))
}

/// What of a blob is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The first byte.
    pub(crate) from: u64,
    /// The byte after the last.
    pub(crate) to: u64,
    total: u64,
    is_whole: bool,
}

impl Part {
    /// All of it.
    pub(crate) fn whole(total: u64) -> Self {
        Self {
            from: 0,
            to: total,
            total,
            is_whole: true,
        }
    }

    /// From the first to before the second byte.
    pub(crate) fn of(from: u64, to: u64, total: u64) -> Self {
        Self {
            from,
            to,
            total,
            is_whole: false,
        }
    }

    /// The refusal of a part that there is not.
    pub(crate) fn unsatisfiable(total: u64) -> Refusal {
        let refusal = Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "SIZE_INVALID",
            "the range is outside of the blob",
        );
        refusal.header(header::CONTENT_RANGE, &format!("bytes */{total}"))
    }
}

/// The answer with a blob or a part of one.
pub(crate) fn blob_answer(digest: &Digest, part: Part, body: Body) -> Response<Body> {
    let Part {
        from,
        to,
        total,
        is_whole,
    } = part;
    let mut answer = Response::new(body);
    *answer.status_mut() = if is_whole {
        StatusCode::OK
    } else {
        StatusCode::PARTIAL_CONTENT
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&digest.to_string()) {
        headers.insert("docker-content-digest", value);
    }
    if !is_whole
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {from}-{}/{total}", to - 1))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    answer
}

fn unknown(digest: &Digest) -> Refusal {
    missing("BLOB_UNKNOWN", "blob unknown to registry")
        .cause(Cause::BlobMissing)
        .detail(json!({"digest": digest.to_string()}))
}
