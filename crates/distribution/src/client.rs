//! The client, and one repository seen through it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use tokio::io::AsyncRead;
use towline_cause::{Cause, Failure, Step};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, Document, Index, Platform, Reference};

use crate::endpoint::health::Health;
use crate::endpoint::plan::{Plan, PlanError};
use crate::endpoint::route::{Need, Route};
use crate::manifest::Name;
use crate::options::Retries;
use crate::scheme::Schemes;
use crate::session::Session;
use crate::token::Tokens;
use crate::transport::Transport;
use crate::watch::Watch;
use crate::{Observer, Options, OptionsError, Trace, blob, manage, manifest, push, tags, transfer};

/// A registry client. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// What all repositories of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) transport: Transport,
    pub(crate) tokens: Tokens,
    pub(crate) schemes: Schemes,
    pub(crate) health: Health,
}

impl Client {
    /// A client with these options. Reads the system's certificate authorities; opens no connection.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        Ok(Self {
            shared: Arc::new(Shared {
                transport: Transport::new(&options)?,
                tokens: Tokens::default(),
                schemes: Schemes::new(options.plain_http.clone()),
                health: Health::default(),
                options,
            }),
        })
    }

    /// A client with the same options and connections of its own, whose TCP segments hold at most so many bytes both ways: where the
    /// path loses larger ones it gets through.
    pub fn with_segments(&self, most: u32) -> Result<Self, OptionsError> {
        Self::new(Options {
            max_segment: Some(most),
            ..self.shared.options.clone()
        })
    }

    /// The endpoints that would be asked for an image, in order. Reads the configuration; asks nobody.
    pub fn plan(&self, reference: &Reference) -> Result<Plan, PlanError> {
        Route::plan(&self.shared, reference)
    }

    /// One repository, seen with this credential.
    pub fn repository(
        &self,
        reference: &Reference,
        credential: Credential,
        trace: Trace,
    ) -> Repository {
        Repository {
            route: Route::new(&self.shared, reference, credential, trace),
        }
    }
}

/// One repository of a registry, seen with one credential. Clones share what they learnt of how to log in.
#[derive(Clone)]
pub struct Repository {
    route: Route,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("reference", self.route.reference())
            .field("credential", self.route.credential())
            .finish_non_exhaustive()
    }
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

impl Resolved {
    /// What the registry wants people to be told, from its `Warning` headers of code 299: a line each, of at most 300 characters.
    pub fn warnings(&self) -> Vec<String> {
        let headers = self.headers.iter();
        let warnings = headers.filter(|(name, _)| name == "warning");
        warnings.filter_map(|(_, value)| warning(value)).collect()
    }
}

/// The text of `299 - "text"`.
fn warning(value: &str) -> Option<String> {
    const MOST: usize = 300;
    let quoted = value.trim().strip_prefix("299 ")?.split_once('"')?.1;
    let (text, _) = quoted.rsplit_once('"')?;
    let mut escaped = false;
    let shown = text.chars().filter(|c| {
        escaped = *c == '\\' && !escaped;
        !escaped && !c.is_control()
    });
    let shown: String = shown.take(MOST).collect();
    (!shown.is_empty()).then_some(shown)
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

impl Repository {
    /// The same, reporting every fact to `observer`.
    #[must_use]
    pub fn observed(mut self, observer: Arc<dyn Observer>) -> Self {
        let watch = Watch::new(observer);
        self.route.each(|session| session.watch = watch.clone());
        self
    }

    /// The same, sending each request once only.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.route.each(|session| session.retries = Retries::NONE);
        self
    }

    /// The same, for who would rather know than wait: whoever says nothing for so long, before an answer or within one, has failed, and is
    /// not asked again. What is cut or refused is asked for again as ever.
    #[must_use]
    pub fn silent_at_most(mut self, limit: Duration) -> Self {
        self.route.each(|session| session.ways.bound_silence(limit));
        self
    }

    /// The reference that this repository was made from.
    pub fn reference(&self) -> &Reference {
        self.route.reference()
    }

    /// Looks up the name, connects and shakes hands; asks nothing. Gives scheme, host and port.
    pub async fn reach(&self) -> Result<String, Failure> {
        let reach = |session: Session| async move { session.reach().await };
        let origin = self.route.run(Need::Anything, reach).await?;
        Ok(origin.to_string())
    }

    /// Opens connections for that many requests that will soon be sent at the same time, where one shows that it can be done. Does not wait.
    pub fn open_ahead(&self, requests: usize) {
        self.route.open_ahead(requests);
    }

    /// Asks `/v2/` without any credential.
    pub async fn ping(&self) -> Result<Ping, Failure> {
        let ping = |session: Session| async move { session.ping().await };
        self.route.run(Need::Anything, ping).await
    }

    /// What time the registry says that it is, as HTTP writes dates, whatever its certificate. Asked without any credential; nothing
    /// vouches for the answer.
    pub async fn clock(&self) -> Result<String, Failure> {
        let clock = |session: Session| async move { session.clock().await };
        self.route.run(Need::Anything, clock).await
    }

    /// Fetches the manifest or index that the reference names (digest, else tag, else `latest`) and verifies it.
    pub async fn resolve(&self) -> Result<Resolved, Failure> {
        self.get_manifest(Name::of(&self.reference().target()))
            .await
    }

    /// Fetches a manifest or index by digest and verifies it.
    pub async fn manifest(&self, digest: &Digest) -> Result<Resolved, Failure> {
        self.get_manifest(Name::Digest(digest.clone())).await
    }

    /// The bytes of a blob were not what its digest says: whoever sent them is asked for it last from now on. True where another
    /// endpoint is left that may have better ones.
    pub fn distrust(&self, digest: &Digest) -> bool {
        self.route.distrust(digest)
    }

    async fn get_manifest(&self, name: Name) -> Result<Resolved, Failure> {
        let get = |session: Session| {
            let name = name.clone();
            async move { manifest::get(&session, &name).await }
        };
        self.route.run(Need::of(&name), get).await
    }

    /// Asks for a manifest's headers; `target` is a tag or a digest. Asks once more with GET where a refusal needs its words.
    pub async fn head_manifest(&self, target: &str) -> Result<ManifestHead, Failure> {
        let name = Name::of(target);
        let need = Need::of(&name);
        let head = |session: Session| {
            let name = name.clone();
            async move { manifest::head(&session, &name).await }
        };
        self.route.run(need, head).await
    }

    /// Asks for a blob's headers, following redirects to where the bytes are.
    pub async fn head_blob(&self, digest: &Digest) -> Result<BlobHead, Failure> {
        let head = |session: Session| {
            let digest = digest.clone();
            async move { blob::head(&session, &digest).await }
        };
        self.route.run(Need::Content, head).await
    }

    /// Opens a blob from `offset` on. The stream resumes by itself after a cut and ends after exactly `descriptor.size - offset` bytes
    /// or with a failure. The bytes are not verified: whoever keeps them compares the digest. `descriptor.urls` are never asked.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, Failure> {
        transfer::open(&self.route, descriptor, offset..descriptor.size).await
    }

    /// Opens a part of a blob, as [`Repository::blob`] does. A server that knows no ranges sends the rest of the blob, or the whole if the
    /// part begins at 0: [`BlobStream::range`] tells what comes.
    pub async fn blob_part(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<BlobStream, Failure> {
        transfer::open(&self.route, descriptor, range).await
    }

    /// Fetches a small blob (a config) whole and verifies it; refuses one of more than `most` bytes.
    pub async fn blob_bytes(&self, descriptor: &Descriptor, most: u64) -> Result<Bytes, Failure> {
        blob::bytes(&self.route, descriptor, most).await
    }

    /// The repository's tags in the registry's order, at most `limit`.
    pub async fn tags(&self, limit: usize) -> Result<Vec<String>, Failure> {
        let list = |session: Session| async move { tags::list(&session, limit).await };
        self.route.run(Need::Tag, list).await
    }

    /// What refers to this manifest, by the referrers API or its fallback tag.
    pub async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Index, Failure> {
        let referrers = |session: Session| {
            let (digest, artifact_type) = (digest.clone(), artifact_type.map(str::to_owned));
            async move { tags::referrers(&session, &digest, artifact_type.as_deref()).await }
        };
        self.route.run(Need::Content, referrers).await
    }

    /// Deletes a manifest by its digest, or a tag; registries may refuse either.
    pub async fn delete_manifest(&self, target: &str) -> Result<(), Failure> {
        manage::delete(self.route.own()?, target).await
    }

    /// The repositories of the registry, at most `limit`; the repository's own name plays no part.
    pub async fn catalog(&self, limit: usize) -> Result<Vec<String>, Failure> {
        manage::catalog(self.route.own()?, limit).await
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        push::has(self.route.own()?, digest).await
    }

    /// Uploads a blob, unless it is there already.
    pub async fn push_blob(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<(), Failure> {
        if bytes.len() as u64 != descriptor.size {
            return Err(Failure::new(
                Cause::DigestMismatch,
                Step::Verify,
                format!(
                    "blob {} has {} bytes by its descriptor, and {} were given to upload",
                    descriptor.digest,
                    descriptor.size,
                    bytes.len()
                ),
            ));
        }
        push::blob(self.route.own()?, descriptor, &mut bytes.as_ref()).await
    }

    /// Uploads a blob in chunks from a reader of exactly `descriptor.size` bytes, unless it is there already.
    pub async fn push_blob_from(
        &self,
        descriptor: &Descriptor,
        reader: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<(), Failure> {
        push::blob(self.route.own()?, descriptor, reader).await
    }

    /// Takes a blob over from another repository of the same registry. False where the registry does not.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Failure> {
        push::mount(self.route.own()?, digest, from).await
    }

    /// Uploads a manifest under `target`, a tag or its digest.
    pub async fn push_manifest(
        &self,
        target: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Failure> {
        push::manifest(self.route.own()?, target, media_type, bytes).await
    }
}

/// The bytes of a blob from some offset to its end. Ends after the first failure.
pub struct BlobStream {
    stream: BoxStream<'static, Result<Bytes, Failure>>,
    endpoint: String,
    range: Range<u64>,
}

impl BlobStream {
    pub(crate) fn new(
        stream: BoxStream<'static, Result<Bytes, Failure>>,
        endpoint: String,
        range: Range<u64>,
    ) -> Self {
        Self {
            stream,
            endpoint,
            range,
        }
    }

    /// Which bytes of the blob come.
    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_and_cleaned() {
        for (value, want) in [
            (
                "299 - \"Your token ends soon.\"",
                Some("Your token ends soon."),
            ),
            (
                r#"299 registry "say \"hi\" \\ bye""#,
                Some(r#"say "hi" \ bye"#),
            ),
            ("299 - \"a\u{1b}[31mb\"", Some("a[31mb")),
            ("199 - \"other\"", None),
            ("299 - bare", None),
            ("299 - \"\"", None),
            ("", None),
        ] {
            assert_eq!(warning(value).as_deref(), want, "{value}");
        }
        let long = format!("299 - \"{}\"", "x".repeat(5000));
        assert_eq!(warning(&long).map(|text| text.len()), Some(300));
    }
}
