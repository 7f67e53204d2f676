//! Blobs: whole or in part.

use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use towline_cause::Cause;
use towline_oci::Digest;

use super::{Answer, Registry, empty, text_header};
use crate::body::{file, full};
use crate::names::Repository;
use crate::range::{Wanted, wanted};
use crate::refusal::{Refusal, missing};

impl Registry {
    pub(super) async fn get_blob(
        self: &Arc<Self>,
        request: &Request<Incoming>,
        name: Repository,
        digest: Digest,
    ) -> Answer {
        let range = text_header(request, &header::RANGE).map(ToOwned::to_owned);
        let head = request.method() == Method::HEAD;
        let asked = digest.clone();
        let (mut content, total) = self
            .blocking("open a blob", move |this| {
                let linked = this.metadata.has_blob(&name, &asked)?;
                if linked && head {
                    let _adding = this.gate.adding();
                    // Whoever finds it does not push it, and may name it soon.
                    this.metadata.touch_blob(&name, &asked)?;
                }
                let found = if linked {
                    this.blobs.open(&asked)?
                } else {
                    None
                };
                found.ok_or_else(|| {
                    let mut unknown = unknown(&asked);
                    if linked {
                        unknown.internal =
                            Some(format!("{name} holds {asked}, whose bytes are gone"));
                    }
                    this.absent(&name, unknown)
                })
            })
            .await?;
        let wanted = if head {
            Wanted::Whole
        } else {
            wanted(range.as_deref(), total)
        };
        let (from, to, status) = match wanted {
            Wanted::Whole => (0, total, StatusCode::OK),
            Wanted::Part(from, to) => (from, to, StatusCode::PARTIAL_CONTENT),
            Wanted::Unsatisfiable => {
                let refusal = Refusal::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "SIZE_INVALID",
                    "the range is outside of the blob",
                );
                return Err(refusal.header(header::CONTENT_RANGE, &format!("bytes */{total}")));
            }
        };
        let body = if head {
            full("")
        } else {
            if from > 0 {
                // A seek moves a number in the kernel and does not block.
                content
                    .seek(SeekFrom::Start(from))
                    .map_err(|error| Refusal {
                        internal: Some(error.to_string()),
                        ..Refusal::new(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "UNKNOWN",
                            "the registry's storage failed",
                        )
                    })?;
            }
            file(content, to - from)
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
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
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(value) = HeaderValue::from_str(&format!("bytes {from}-{}/{total}", to - 1))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        Ok(answer)
    }

    pub(super) async fn delete_blob(self: &Arc<Self>, name: Repository, digest: Digest) -> Answer {
        self.blocking("unlink a blob", move |this| {
            if this.metadata.unlink_blob(&name, &digest)? {
                return Ok(());
            }
            Err(this.absent(&name, unknown(&digest)))
        })
        .await?;
        Ok(empty(StatusCode::ACCEPTED, &[]))
    }
}

fn unknown(digest: &Digest) -> Refusal {
    missing("BLOB_UNKNOWN", "blob unknown to registry")
        .cause(Cause::BlobMissing)
        .detail(json!({"digest": digest.to_string()}))
}
