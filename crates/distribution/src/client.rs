//! The client, and one repository seen through it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use tokio::io::AsyncRead;
use towline_cause::{Cause, Failure, Step};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, Document, Index, Platform, Reference};

use crate::{Fact, Observer, Options, OptionsError, Trace};

/// A registry client. Clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    options: Arc<Options>,
}

impl Client {
    /// A client with these options. Reads the system's certificate authorities; opens no connection.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        Ok(Self {
            options: Arc::new(options),
        })
    }

    /// One repository, seen with this credential.
    pub fn repository(
        &self,
        reference: &Reference,
        credential: Credential,
        trace: Trace,
    ) -> Repository {
        let _ = (&self.options, credential, trace);
        Repository {
            reference: reference.clone(),
        }
    }
}

/// One repository of a registry, seen with one credential.
#[derive(Debug, Clone)]
pub struct Repository {
    reference: Reference,
}

/// A manifest or an index that was fetched and verified.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Digest of `bytes`, in the algorithm of the reference's digest where there is one.
    pub digest: Digest,
    /// Media type as the server named it, without parameters.
    pub media_type: String,
    /// The document.
    pub document: Document,
    /// The bytes as they came.
    pub bytes: Bytes,
    /// Scheme, host and port that served it.
    pub endpoint: String,
    /// Headers of interest: rate limits, warnings, server, date. Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What a HEAD of a manifest says.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// From `Docker-Content-Digest`, where it parses. A claim, not verified.
    pub digest: Option<Digest>,
    /// Media type without parameters.
    pub media_type: String,
    /// From `Content-Length`.
    pub size: Option<u64>,
    /// Scheme, host and port that answered.
    pub endpoint: String,
    /// Headers of interest. Names in lower case.
    pub headers: Vec<(String, String)>,
}

/// What a HEAD of a blob says.
#[derive(Debug, Clone)]
pub struct BlobHead {
    /// From `Content-Length`.
    pub size: Option<u64>,
    /// Scheme, host and port that has the bytes: another one than the registry where it redirects.
    pub endpoint: String,
}

/// What the base of the API, `/v2/`, answers.
#[derive(Debug, Clone)]
pub struct Ping {
    /// 200 or 401.
    pub status: u16,
    /// Scheme, host and port that answered.
    pub endpoint: String,
    /// The challenges of a 401.
    pub challenges: Vec<crate::facts::ChallengeFact>,
}

fn unfinished() -> Failure {
    Failure::new(Cause::Unknown, Step::Resolve, "not written yet")
}

impl Repository {
    /// The same, reporting every fact to `observer`.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn Observer>) -> Self {
        drop(observer);
        self
    }

    /// The same, sending each request once only.
    #[must_use]
    pub fn once(self) -> Self {
        self
    }

    /// The reference that this repository was made from.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Looks up the name, connects and shakes hands; asks nothing. Gives scheme, host and port.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn reach(&self) -> Result<String, Failure> {
        Err(unfinished())
    }

    /// Asks `/v2/` without any credential.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn ping(&self) -> Result<Ping, Failure> {
        Err(unfinished())
    }

    /// Fetches the manifest or index that the reference names (digest, else tag, else `latest`) and verifies it.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn resolve(&self) -> Result<Resolved, Failure> {
        Err(unfinished())
    }

    /// Fetches a manifest or index by digest and verifies it.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn manifest(&self, digest: &Digest) -> Result<Resolved, Failure> {
        let _ = digest;
        Err(unfinished())
    }

    /// Asks for a manifest's headers; `target` is a tag or a digest.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn head_manifest(&self, target: &str) -> Result<ManifestHead, Failure> {
        let _ = target;
        Err(unfinished())
    }

    /// Asks for a blob's headers, following redirects to where the bytes are.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn head_blob(&self, digest: &Digest) -> Result<BlobHead, Failure> {
        let _ = digest;
        Err(unfinished())
    }

    /// Opens a blob from `offset` on. The stream resumes by itself after a cut and ends after exactly `descriptor.size - offset` bytes
    /// or with a failure. The bytes are not verified: whoever keeps them compares the digest.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, Failure> {
        let _ = (descriptor, offset);
        Err(unfinished())
    }

    /// Fetches a small blob (a config) whole and verifies it; refuses one of more than `most` bytes.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn blob_bytes(&self, descriptor: &Descriptor, most: u64) -> Result<Bytes, Failure> {
        let _ = (descriptor, most);
        Err(unfinished())
    }

    /// The repository's tags in the registry's order, at most `limit`.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn tags(&self, limit: usize) -> Result<Vec<String>, Failure> {
        let _ = limit;
        Err(unfinished())
    }

    /// What refers to this manifest, by the referrers API or its fallback tag.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Index, Failure> {
        let _ = (digest, artifact_type);
        Err(unfinished())
    }

    /// Uploads a blob, unless it is there already.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn push_blob(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<(), Failure> {
        let _ = (descriptor, bytes);
        Err(unfinished())
    }

    /// Uploads a blob in chunks from a reader of exactly `descriptor.size` bytes, unless it is there already.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn push_blob_from(
        &self,
        descriptor: &Descriptor,
        reader: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), Failure> {
        let _ = (descriptor, reader);
        Err(unfinished())
    }

    /// Takes a blob over from another repository of the same registry. False where the registry does not.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Failure> {
        let _ = (digest, from);
        Err(unfinished())
    }

    /// Uploads a manifest under `target`, a tag or its digest.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn push_manifest(
        &self,
        target: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Failure> {
        let _ = (target, media_type, bytes);
        Err(unfinished())
    }
}

/// The bytes of a blob from some offset to its end. Ends after the first failure.
pub struct BlobStream {
    stream: BoxStream<'static, Result<Bytes, Failure>>,
    endpoint: String,
}

impl BlobStream {
    /// Scheme, host and port that serve the bytes (at the start).
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same as a reader; a failure becomes the source of its `io::Error`.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        use futures::StreamExt as _;
        tokio_util::io::StreamReader::new(
            self.stream
                .map(|piece| piece.map_err(std::io::Error::other)),
        )
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

/// The manifest of an index that a node of this platform runs; a failure of step platform that lists what is offered.
pub fn select_platform<'a>(
    index: &'a Index,
    platform: &Platform,
) -> Result<&'a Descriptor, Failure> {
    index.select(platform).ok_or_else(|| {
        let offered: Vec<String> = index
            .platforms()
            .iter()
            .take(40)
            .map(ToString::to_string)
            .collect();
        let offered = if offered.is_empty() {
            "none".to_owned()
        } else {
            offered.join(", ")
        };
        Failure::new(
            Cause::PlatformMismatch,
            Step::Platform,
            format!("the image is not built for {platform}; it is built for {offered}"),
        )
    })
}

#[expect(dead_code, reason = "the signature comes first")]
fn taken(_: Fact) {}
