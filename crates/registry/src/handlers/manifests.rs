//! Manifests: checked when they come, kept to the byte.

use std::io::Read as _;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use towline_cause::Cause;
use towline_oci::{
    Algorithm, Descriptor, Digest, Document, DocumentError, MAX_DOCUMENT_BYTES, Verifier,
    media_type,
};
use towline_sys::fs::FsError;

use super::{Answer, Registry, described, empty, text_header};
use crate::body::{Body, full};
use crate::collect::named;
use crate::names::{Repository, Tag};
use crate::refusal::{Refusal, bad, missing};
use crate::route::{ManifestName, query};
use crate::storage::{Held, ManifestRecord, StorageError};

/// Tags that one request may set.
const TAGS_AT_ONCE: usize = 32;

impl Registry {
    pub(super) async fn get_manifest(
        self: &Arc<Self>,
        method: &Method,
        name: Repository,
        which: ManifestName,
    ) -> Answer {
        if let Some(held) = self.recent_manifest(&name, &which) {
            return Ok(manifest_answer(method, held));
        }
        let held = self
            .blocking("read a manifest", move |this| {
                let held = this.find_manifest(&name, &which)?;
                held.ok_or_else(|| this.absent(&name, unknown(&which)))
            })
            .await?;
        Ok(manifest_answer(method, held))
    }

    /// The manifest, if it was read lately. Does not block.
    fn recent_manifest(&self, name: &Repository, which: &ManifestName) -> Option<Held> {
        let recent = self.metadata.recent()?;
        match which {
            ManifestName::Tag(tag) => recent.manifest(name, tag.as_str()),
            ManifestName::Digest(digest) => recent.manifest(name, &digest.to_string()),
            ManifestName::Impossible(_) => None,
        }
    }

    /// The manifest that a repository holds under a name, if it and its bytes are there.
    pub(crate) fn find_manifest(
        &self,
        name: &Repository,
        which: &ManifestName,
    ) -> Result<Option<Held>, Refusal> {
        if let Some(held) = self.recent_manifest(name, which) {
            return Ok(Some(held));
        }
        let recent = self.metadata.recent();
        let since = recent.map(|recent| (recent, recent.since()));
        let held = self.read_manifest(name, which)?;
        if let (Some((recent, since)), Some(held)) = (since, &held) {
            recent.keep_manifest(since, name, &described(which), held);
        }
        Ok(held)
    }

    fn read_manifest(
        &self,
        name: &Repository,
        which: &ManifestName,
    ) -> Result<Option<Held>, Refusal> {
        let digest = match which {
            ManifestName::Digest(digest) => Some(digest.clone()),
            ManifestName::Tag(tag) => self.metadata.tag(name, tag)?,
            ManifestName::Impossible(_) => None,
        };
        let found = match &digest {
            Some(digest) => self.metadata.manifest(name, digest)?,
            None => None,
        };
        let (Some(digest), Some(record)) = (digest, found) else {
            return Ok(None);
        };
        let Some((mut file, length)) = self.blobs.open(&digest)? else {
            tracing::error!("{name} holds {digest}, whose bytes are gone");
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(
            usize::try_from(length)
                .unwrap_or_default()
                .min(MAX_DOCUMENT_BYTES),
        );
        let read = file
            .by_ref()
            .take(MAX_DOCUMENT_BYTES as u64)
            .read_to_end(&mut bytes);
        read.map_err(|error| StorageError::from(FsError::new("read", digest.to_string(), error)))?;
        Ok(Some(Held {
            digest,
            media_type: record.media_type,
            bytes: bytes.into(),
        }))
    }

    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        request: Request<Incoming>,
        name: Repository,
        which: ManifestName,
    ) -> Answer {
        let stated = text_header(&request, &header::CONTENT_TYPE)
            .unwrap_or_default()
            .to_owned();
        let mut tags = Vec::new();
        for tag in query(request.uri(), "tag") {
            tags.push(
                Tag::parse(&tag).map_err(|error| bad("MANIFEST_INVALID", error.to_string()))?,
            );
        }
        if tags.len() > TAGS_AT_ONCE {
            return Err(bad(
                "MANIFEST_INVALID",
                format!("one request may set {TAGS_AT_ONCE} tags"),
            ));
        }
        let reading = Limited::new(request.into_body(), MAX_DOCUMENT_BYTES).collect();
        let bytes = tokio::time::timeout(self.settings.get().limits.body_patience, reading).await;
        let bytes = bytes.map_err(|_| {
            Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "MANIFEST_INVALID",
                "the body stopped coming",
            )
        })?;
        let bytes = bytes
            .map_err(|error| unreadable(error.as_ref()))?
            .to_bytes();
        self.blocking("keep a manifest", move |this| {
            this.keep_manifest(&name, which, &stated, tags, &bytes)
        })
        .await
    }

    fn keep_manifest(
        &self,
        name: &Repository,
        which: ManifestName,
        stated: &str,
        mut tags: Vec<Tag>,
        bytes: &[u8],
    ) -> Answer {
        let algorithm = match &which {
            ManifestName::Digest(digest) => digest.algorithm(),
            ManifestName::Tag(_) | ManifestName::Impossible(_) => Algorithm::Sha256,
        };
        let mut verifier = Verifier::new(algorithm);
        verifier.update(bytes);
        let digest = verifier.finish();
        match which {
            ManifestName::Digest(expected) if expected != digest => {
                return Err(StorageError::DigestMismatch {
                    expected,
                    actual: digest,
                }
                .into());
            }
            ManifestName::Digest(_) => {}
            ManifestName::Tag(tag) => tags.push(tag),
            ManifestName::Impossible(error) => {
                return Err(bad("MANIFEST_INVALID", error.to_string()));
            }
        }
        let media_type = media_type_of(stated, bytes);
        let document = Document::parse(&media_type, bytes).map_err(|error| invalid(&error))?;
        let adding = self.gate.adding();
        adding.note(name, named(&document));
        adding.note(name, [&digest]);
        self.all_there(name, &document)?;
        let subject = subject(&document).map(|subject| subject.digest.clone());

        self.store_manifest(name, &digest, &media_type, &document, bytes)?;
        for tag in &tags {
            self.metadata.set_tag(name, tag, &digest)?;
        }
        let mut headers = vec![
            ("location", format!("/v2/{name}/manifests/{digest}")),
            ("docker-content-digest", digest.to_string()),
        ];
        headers.extend(subject.map(|subject| ("oci-subject", subject.to_string())));
        headers.extend(tags.iter().map(|tag| ("oci-tag", tag.to_string())));
        Ok(empty(StatusCode::CREATED, &headers))
    }

    /// Keeps a manifest of this digest, and its place among the referrers of its subject.
    pub(crate) fn store_manifest(
        &self,
        name: &Repository,
        digest: &Digest,
        media_type: &str,
        document: &Document,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let subject = subject(document).map(|subject| subject.digest.clone());
        let room = self.charge(name, digest, bytes.len() as u64)?;
        self.blobs.put(digest, bytes)?;
        let record = ManifestRecord {
            media_type: media_type.to_owned(),
            subject: subject.clone(),
        };
        // Before the record: an entry without its manifest is not listed, a manifest without its entry would not be found.
        if let Some(subject) = &subject {
            let descriptor = referrer(media_type, digest, bytes.len(), document);
            self.metadata
                .add_referrer(name, subject, digest, &descriptor)?;
        }
        self.metadata.put_manifest(name, digest, &record)?;
        room.kept();
        Ok(())
    }

    /// Whether the repository holds what a manifest names, except what is fetched elsewhere.
    fn all_there(&self, name: &Repository, document: &Document) -> Result<(), Refusal> {
        if self.sparse {
            return Ok(());
        }
        let mut absent = Vec::new();
        match document {
            Document::Manifest(manifest) => {
                for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    if !is_elsewhere(descriptor)
                        && !self.metadata.has_blob(name, &descriptor.digest)?
                    {
                        absent.push(descriptor.digest.to_string());
                    }
                }
            }
            Document::Index(index) => {
                for descriptor in &index.manifests {
                    let digest = &descriptor.digest;
                    if self.metadata.manifest(name, digest)?.is_none()
                        && !self.metadata.has_blob(name, digest)?
                    {
                        absent.push(digest.to_string());
                    }
                }
            }
        }
        if absent.is_empty() {
            return Ok(());
        }
        let message = "manifest references a manifest or blob unknown to registry";
        Err(bad("MANIFEST_BLOB_UNKNOWN", message).detail(json!({"digests": absent})))
    }

    pub(super) async fn delete_manifest(
        self: &Arc<Self>,
        name: Repository,
        which: ManifestName,
    ) -> Answer {
        self.blocking("delete a manifest", move |this| {
            let deleted = match &which {
                ManifestName::Tag(tag) => this.metadata.delete_tag(&name, tag)?,
                ManifestName::Digest(digest) => this.metadata.delete_manifest(&name, digest)?,
                ManifestName::Impossible(_) => false,
            };
            this.quotas.forget(&name);
            if deleted {
                Ok(())
            } else {
                Err(this.absent(&name, unknown(&which)))
            }
        })
        .await?;
        Ok(empty(StatusCode::ACCEPTED, &[]))
    }
}

/// The answer with a manifest, or with its headers alone.
pub(crate) fn manifest_answer(method: &Method, held: Held) -> Response<Body> {
    let length = held.bytes.len();
    let body = if method == Method::HEAD {
        full("")
    } else {
        full(held.bytes)
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let texts = [
        ("content-type", held.media_type),
        ("docker-content-digest", held.digest.to_string()),
        ("etag", format!("\"{}\"", held.digest)),
    ];
    for (name, value) in texts {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    answer
}

/// The one field of a document that says what it is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: Option<String>,
}

/// The media type of a manifest: what the client said, or else what the document says.
fn media_type_of(stated: &str, bytes: &[u8]) -> String {
    let stated = media_type::essence(stated);
    if media_type::is_manifest(&stated)
        || media_type::is_index(&stated)
        || media_type::is_schema1(&stated)
    {
        return stated;
    }
    let generic =
        stated.is_empty() || stated == "application/json" || stated == "application/octet-stream";
    let written = serde_json::from_slice::<Written>(bytes)
        .ok()
        .and_then(|written| written.media_type);
    written.filter(|_| generic).unwrap_or(stated)
}

/// Whether what a descriptor names is fetched from somewhere else.
pub(crate) fn is_elsewhere(descriptor: &Descriptor) -> bool {
    !descriptor.urls.is_empty()
        || descriptor.media_type.contains("nondistributable")
        || descriptor.media_type.contains("foreign")
}

fn subject(document: &Document) -> Option<&Descriptor> {
    match document {
        Document::Manifest(manifest) => manifest.subject.as_ref(),
        Document::Index(index) => index.subject.as_ref(),
    }
}

/// What the list of referrers says of a manifest.
fn referrer(media_type: &str, digest: &Digest, size: usize, document: &Document) -> Value {
    let (artifact_type, annotations) = match document {
        Document::Manifest(manifest) => {
            let config = Some(manifest.config.media_type.clone()).filter(|kind| !kind.is_empty());
            (
                manifest.artifact_type.clone().or(config),
                &manifest.annotations,
            )
        }
        Document::Index(index) => (index.artifact_type.clone(), &index.annotations),
    };
    let mut descriptor =
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    if let Some(kind) = artifact_type {
        descriptor["artifactType"] = json!(kind);
    }
    if !annotations.is_empty() {
        descriptor["annotations"] = json!(annotations);
    }
    descriptor
}

/// The refusal of a manifest that is not there.
pub(crate) fn unknown(which: &ManifestName) -> Refusal {
    let cause = match which {
        ManifestName::Tag(_) | ManifestName::Impossible(_) => Cause::TagNotFound,
        ManifestName::Digest(_) => Cause::DigestNotFound,
    };
    let name = described(which);
    missing("MANIFEST_UNKNOWN", "manifest unknown")
        .cause(cause)
        .detail(json!({"reference": name}))
}

fn unreadable(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Refusal {
    if error.is::<LengthLimitError>() {
        let message = format!("a manifest may have at most {MAX_DOCUMENT_BYTES} bytes");
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message);
    }
    bad("MANIFEST_INVALID", "the body ended early")
}

fn invalid(error: &DocumentError) -> Refusal {
    bad("MANIFEST_INVALID", towline_sys::task::chain(error))
}
