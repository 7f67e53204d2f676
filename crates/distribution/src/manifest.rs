//! Manifests: fetched by tag or digest, verified, and what it means where they are not there.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::Deserialize;
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Digest, Document, DocumentError, media_type};

use crate::body::BodyFault;
use crate::client::{ManifestHead, Resolved};
use crate::fault;
use crate::page::is_web_page;
use crate::refused;
use crate::retry::{self, Seen};
use crate::said::Said;
use crate::session::{Asking, Got, Session};
use crate::target::Subject;
use crate::transport::of_interest;
use crate::url::Origin;

/// Bytes of a web page that are read for its title.
const PAGE: usize = 64 << 10;

/// A tag or a digest.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Tag(String),
    Digest(Digest),
}

impl Name {
    pub(crate) fn of(text: &str) -> Self {
        Digest::parse(text).map_or_else(|_| Self::Tag(text.to_owned()), Self::Digest)
    }

    fn subject(&self) -> Subject {
        match self {
            Self::Tag(tag) => Subject::Tag(tag.clone()),
            Self::Digest(digest) => Subject::Manifest(digest.clone()),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

fn asking(session: &Session, method: Method, name: &Name) -> Asking {
    let repository = session.target.repository();
    let what = format!("{method} manifest {name} of {repository}");
    Asking::new(
        method,
        format!("/v2/{repository}/manifests/{name}"),
        what,
        Step::Resolve,
    )
    .about(name.subject())
    .header(header::ACCEPT, &accept())
}

/// What a node can run, and then anything: so that a registry shows what it has instead of hiding it behind a 404.
fn accept() -> String {
    format!("{}, */*;q=0.1", media_type::MANIFEST_ACCEPT.join(", "))
}

/// Fetches and verifies a manifest or an index.
pub(crate) async fn get(session: &Session, name: &Name) -> Result<Resolved, Failure> {
    let asking = asking(session, Method::GET, name);
    let mut attempt = 1;
    loop {
        let got = session.ask(&asking).await?;
        if got.answer.status != StatusCode::OK {
            return Err(not_there(session, &asking, name, got).await);
        }
        let origin = got.answer.url.origin.clone();
        let headers = got.answer.headers;
        let limit = session.shared.transport.limits.manifest;
        match got.answer.body.read(limit).await {
            Ok(bytes) => return read(session, name, &origin, &headers, bytes),
            Err(why) => {
                let seen = match why {
                    BodyFault::Idle(_) if !session.ways.is_patient() => Seen::Final,
                    _ => retry::of_body(&why),
                };
                let Some(wait) = retry::next(seen, attempt, &session.retries, fastrand::f64())
                else {
                    return Err(
                        fault::of_body(&why, &origin, &asking.what, Step::Resolve, 0).because(why),
                    );
                };
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
        }
    }
}

fn read(
    session: &Session,
    name: &Name,
    origin: &Origin,
    headers: &http::HeaderMap,
    bytes: Bytes,
) -> Result<Resolved, Failure> {
    let said_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(media_type::essence)
        .unwrap_or_default();
    let fail = |cause, step, words: String| {
        Failure::new(
            cause,
            step,
            format!(
                "manifest {name} of {} from {origin}: {words}",
                session.target.repository()
            ),
        )
        .at(origin.to_string())
    };
    if said_type == "text/html" || is_web_page(&bytes) {
        let said = Said::read("text/html", &bytes[..bytes.len().min(PAGE)]);
        return Err(fail(
            Cause::NotARegistry,
            Step::Resolve,
            format!(
                "the answer is a web page {:?}, not a manifest",
                said.message
            ),
        ));
    }
    let digest = match name {
        Name::Digest(wanted) => {
            let mut verifier = wanted.verifier();
            verifier.update(&bytes);
            let got = verifier.finish();
            if got != *wanted {
                let words = format!("{} bytes came, and their digest is {got}", bytes.len());
                // Text of some other kind was never a manifest.
                if said_type.starts_with("text/") && said_type != "text/plain" {
                    let words = format!("{words}; they call themselves {said_type:?}");
                    let failure = fail(Cause::NotARegistry, Step::Resolve, words);
                    return Err(failure.or_else([Cause::DigestMismatch]));
                }
                return Err(fail(Cause::DigestMismatch, Step::Verify, words));
            }
            got
        }
        // The header is a claim; the digest of what came is a fact.
        Name::Tag(_) => Digest::of(&bytes),
    };
    let media_type = effective_type(&said_type, &bytes);
    let document = Document::parse(&media_type, &bytes).map_err(|error| {
        let (cause, open) = of_document(&error);
        fail(cause, Step::Resolve, error.to_string())
            .or_else(open)
            .because(error)
    })?;
    Ok(Resolved {
        digest,
        media_type,
        document,
        bytes,
        endpoint: origin.to_string(),
        headers: of_interest(headers),
    })
}

/// The media type to read a document with: the server's, or the document's own where the server names none that means anything.
fn effective_type(served: &str, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        schema_version: u32,
    }
    let vague = matches!(
        served,
        "" | "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream"
    );
    if !vague {
        return served.to_owned();
    }
    match serde_json::from_slice::<Own>(bytes) {
        Ok(own) if own.schema_version == 1 => media_type::DOCKER_SCHEMA1.to_owned(),
        Ok(own) if !own.media_type.is_empty() => own.media_type,
        _ => served.to_owned(),
    }
}

fn of_document(error: &DocumentError) -> (Cause, Vec<Cause>) {
    match error {
        DocumentError::Schema1(_) => (Cause::ManifestUnsupported, vec![]),
        DocumentError::MediaType(_) => (Cause::NotAnImage, vec![Cause::NotARegistry]),
        DocumentError::TooLarge(_) | DocumentError::TooMany(_) => (Cause::ImageTooLarge, vec![]),
        DocumentError::Confused | DocumentError::SchemaVersion(_) => {
            (Cause::NotAnImage, vec![Cause::RegistryMisconfigured])
        }
        DocumentError::Disagreement { .. } | DocumentError::Json(_) => {
            (Cause::RegistryMisconfigured, vec![Cause::NotARegistry])
        }
    }
}

/// A manifest that was refused. For a 404 the list of tags tells a missing tag from a missing repository.
async fn not_there(session: &Session, asking: &Asking, name: &Name, got: Got) -> Failure {
    let status = got.answer.status;
    let origin = got.answer.url.origin.clone();
    let elsewhere = got.elsewhere;
    if status != StatusCode::NOT_FOUND || elsewhere {
        return refused::of_answer(session, asking, got).await;
    }
    let said = session.said(got.answer, asking).await;
    let failure = refused::of_status(&session.target, &origin, asking, status, &said, None);
    if !matches!(failure.cause(), Cause::TagNotFound | Cause::DigestNotFound) {
        return failure;
    }
    let Some(found) = tags_tell(session, &said).await else {
        return failure;
    };
    match (found, name) {
        (Tags::NoRepository(words), _) => {
            let open = if session.target.is_anonymous() {
                session
                    .target
                    .hidden()
                    .into_iter()
                    .skip(1)
                    .chain([Cause::NoCredentials])
                    .collect()
            } else {
                session
                    .target
                    .hidden()
                    .into_iter()
                    .skip(1)
                    .collect::<Vec<_>>()
            };
            Failure::new(
                Cause::RepositoryNotFound,
                Step::Resolve,
                format!(
                    "the registry has no repository {}: {} was answered {}, and its list of tags {words}",
                    session.target.repository(),
                    asking.what,
                    said.with_status(status)
                ),
            )
            .at(origin.to_string())
            .or_else(open)
        }
        // The list was read and does not hold the tag: nothing else is left.
        (Tags::Some(tags), Name::Tag(tag)) if !tags.contains(tag) => Failure::new(
            Cause::TagNotFound,
            Step::Resolve,
            format!(
                "repository {} has no tag {tag}: {} {} at {origin} was answered {}",
                session.target.repository(),
                asking.what,
                session.target.who(),
                said.with_status(status)
            ),
        )
        .at(origin.to_string()),
        _ => failure,
    }
}

enum Tags {
    Some(Vec<String>),
    NoRepository(String),
}

async fn tags_tell(session: &Session, said: &Said) -> Option<Tags> {
    let repository = session.target.repository();
    let what = format!("GET tags of {repository}");
    let asking = Asking::new(
        Method::GET,
        format!("/v2/{repository}/tags/list"),
        what,
        Step::Resolve,
    )
    .about(Subject::Tags);
    let got = session.ask(&asking).await.ok()?;
    let status = got.answer.status;
    if status == StatusCode::OK {
        let limit = session.shared.transport.limits.page;
        let bytes = got.answer.body.read(limit).await.ok()?;
        return crate::tags::read(&bytes).map(Tags::Some);
    }
    let tags_said = session.said(got.answer, &asking).await;
    // Two bare 404 tell nothing about a repository: not even that a registry is there.
    let named =
        tags_said.has("NAME_UNKNOWN") || (tags_said.has("NOT_FOUND") && !said.codes.is_empty());
    (status == StatusCode::NOT_FOUND && named)
        .then(|| Tags::NoRepository(tags_said.with_status(status)))
}

/// Asks for the headers of a manifest.
pub(crate) async fn head(session: &Session, name: &Name) -> Result<ManifestHead, Failure> {
    let asking = asking(session, Method::HEAD, name);
    let got = session.ask(&asking).await?;
    let status = got.answer.status;
    if status == StatusCode::METHOD_NOT_ALLOWED || (got.elsewhere && !status.is_success()) {
        // Some servers know no HEAD, and some sign their redirects for GET alone.
        return get(session, name).await.map(|found| ManifestHead {
            digest: Some(found.digest),
            media_type: found.media_type,
            size: Some(found.bytes.len() as u64),
            endpoint: found.endpoint,
            headers: found.headers,
        });
    }
    if status != StatusCode::OK {
        return Err(refused::of_answer(session, &asking, got).await);
    }
    let answer = &got.answer;
    Ok(ManifestHead {
        digest: answer
            .header("docker-content-digest")
            .and_then(|text| Digest::parse(text).ok()),
        media_type: answer
            .header("content-type")
            .map(media_type::essence)
            .unwrap_or_default(),
        size: answer
            .header("content-length")
            .and_then(|text| text.parse().ok()),
        endpoint: answer.url.origin.to_string(),
        headers: of_interest(&answer.headers),
    })
}
