//! Blobs: asked for, looked at, and the small ones read whole.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest};

use crate::client::BlobHead;
use crate::endpoint::route::Route;
use crate::page::{is_web_page, says_page};
use crate::refused;
use crate::session::{Asking, Session};
use crate::target::Subject;
use crate::transfer::{content_range, open};
use crate::url::Origin;

pub(crate) fn asking(session: &Session, method: Method, digest: &Digest) -> Asking {
    let repository = session.target.repository();
    let what = format!("{method} blob {digest} of {repository}");
    Asking::new(
        method,
        format!("/v2/{repository}/blobs/{digest}"),
        what,
        Step::Fetch,
    )
    .about(Subject::Blob(digest.clone()))
}

/// A web page came where a blob was asked for: of the registry, or of the place to which it sends for its blobs.
pub(crate) fn page_instead(origin: &Origin, what: &str, elsewhere: bool) -> Failure {
    let words = format!("{what}: {origin} answers with a web page instead of the blob");
    let failure = if elsewhere {
        Failure::new(Cause::BlobHostUnreachable, Step::Fetch, words).or_else([Cause::NotARegistry])
    } else {
        Failure::new(Cause::NotARegistry, Step::Fetch, words)
    };
    failure.at(origin.to_string())
}

/// What does not fit what the manifest says of a blob.
pub(crate) fn mismatch(repository: &str, descriptor: &Descriptor, words: &str) -> Failure {
    Failure::new(
        Cause::DigestMismatch,
        Step::Verify,
        format!(
            "blob {} of {repository} has {} bytes by its manifest: {words}",
            descriptor.digest, descriptor.size
        ),
    )
}

pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
}

/// A small blob, whole and verified.
pub(crate) async fn bytes(
    route: &Route,
    descriptor: &Descriptor,
    most: u64,
) -> Result<Bytes, Failure> {
    let digest = &descriptor.digest;
    let refuse = |cause, step, words: String| {
        Failure::new(
            cause,
            step,
            format!(
                "blob {digest} of {} {words}",
                route.reference().repository()
            ),
        )
    };
    if descriptor.size > most {
        return Err(refuse(
            Cause::ImageTooLarge,
            Step::Verify,
            format!(
                "has {} bytes by its manifest, more than the {most} that are read",
                descriptor.size
            ),
        ));
    }
    let mut wrong = Vec::new();
    loop {
        let mut stream = open(route, descriptor, 0..descriptor.size).await?;
        let mut verifier = digest.verifier();
        let mut whole = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            verifier.update(&piece);
            whole.extend_from_slice(&piece);
        }
        let got = verifier.finish();
        if got == *digest {
            return Ok(whole.freeze());
        }
        let failure = if is_web_page(&whole) {
            let words = "came as a web page".to_owned();
            refuse(Cause::NotARegistry, Step::Fetch, words)
        } else {
            let words = format!("came as {} bytes whose digest is {got}", whole.len());
            refuse(Cause::DigestMismatch, Step::Verify, words)
        }
        .at(stream.endpoint().to_owned());
        // Another endpoint may have the right ones; the wrong ones are dropped with this round.
        if !route.distrust(digest) {
            return Err(failure.and_others(wrong));
        }
        wrong.push(failure);
    }
}

/// Asks for the headers of a blob where its bytes are; `None` where it is not there.
pub(crate) async fn head(session: &Session, digest: &Digest) -> Result<BlobHead, Failure> {
    let mut asking = asking(session, Method::HEAD, digest);
    let mut got = session.ask(&asking).await?;
    if !got.answer.status.is_success()
        && (got.elsewhere || got.answer.status == StatusCode::METHOD_NOT_ALLOWED)
    {
        // Signed URLs are for GET alone: one byte tells as much.
        asking.method = Method::GET;
        asking = asking.header(header::RANGE, "bytes=0-0");
        got = session.ask(&asking).await?;
        if got.answer.status == StatusCode::PARTIAL_CONTENT {
            let whole = got
                .answer
                .header("content-range")
                .and_then(content_range)
                .and_then(|(_, whole)| whole);
            return Ok(BlobHead {
                size: whole,
                endpoint: got.answer.url.origin.to_string(),
            });
        }
    }
    if !got.answer.status.is_success() {
        return Err(refused::of_answer(session, &asking, got).await);
    }
    if says_page(&got.answer.headers, digest) {
        let origin = &got.answer.url.origin;
        return Err(page_instead(origin, &asking.what, got.elsewhere));
    }
    Ok(BlobHead {
        size: length(&got.answer.headers),
        endpoint: got.answer.url.origin.to_string(),
    })
}
