//! Blobs: a stream that survives cuts by asking for the rest, bounded by the descriptor's size.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest};

use crate::body::Body;
use crate::client::{BlobHead, BlobStream};
use crate::endpoint::route::{Need, Route};
use crate::facts::Fact;
use crate::fault;
use crate::refused;
use crate::retry::{self, Seen};
use crate::session::{Asking, Session};
use crate::target::Subject;
use crate::url::Origin;

fn asking(session: &Session, method: Method, digest: &Digest) -> Asking {
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

/// A blob on its way: what was given out already, and the connection that brings the rest.
struct Transfer {
    route: Route,
    descriptor: Descriptor,
    /// Bytes of the blob before this were given out, or were there before.
    at: u64,
    /// Bytes to throw away first: a server without ranges starts at 0.
    skip: u64,
    body: Option<(Body, Origin)>,
    /// The endpoint that serves.
    place: String,
    /// The endpoint that served badly: others are asked before it.
    avoid: Vec<String>,
    /// Attempts since the last byte arrived.
    fruitless: u32,
    ended: bool,
}

/// Opens a blob from `offset` on.
pub(crate) async fn open(
    route: &Route,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<BlobStream, Failure> {
    let mut transfer = Transfer {
        route: route.clone(),
        place: String::new(),
        avoid: route.distrusted(&descriptor.digest),
        descriptor: descriptor.clone(),
        at: offset,
        skip: 0,
        body: None,
        fruitless: 0,
        ended: false,
    };
    if offset > descriptor.size {
        return Err(transfer.mismatch(&format!("{offset} bytes are there already")));
    }
    let mut endpoint = route.first_place();
    if offset < descriptor.size {
        transfer.connect().await?;
        if let Some((_, origin)) = &transfer.body {
            endpoint = origin.to_string();
        }
    }
    let stream = futures::stream::unfold(transfer, |mut transfer| async move {
        let piece = transfer.next().await?;
        Some((piece, transfer))
    });
    Ok(BlobStream::new(stream.fuse().boxed(), endpoint))
}

impl Transfer {
    /// The next piece; `None` after the last one or after a failure.
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if self.ended || self.at == self.descriptor.size {
            return None;
        }
        let piece = self.piece().await;
        self.ended = piece.is_err();
        Some(piece)
    }

    async fn piece(&mut self) -> Result<Bytes, Failure> {
        loop {
            if self.body.is_none()
                && let Err(failure) = self.connect().await
            {
                // Whatever cut the connection may take a moment to pass; what is final stays so.
                let is_final =
                    matches!(failure.cause(), Cause::DigestMismatch | Cause::RateLimited);
                if is_final || !failure.cause().transient() {
                    return Err(failure);
                }
                self.again(failure).await?;
                continue;
            }
            let Some((body, origin)) = &mut self.body else {
                continue;
            };
            let failure = match body.next().await {
                Some(Ok(mut piece)) => {
                    if self.skip > 0 {
                        let skipped = self.skip.min(piece.len() as u64);
                        self.skip -= skipped;
                        // At most the piece's own length, which is a usize.
                        piece = piece.split_off(usize::try_from(skipped).unwrap_or(piece.len()));
                        if piece.is_empty() {
                            continue;
                        }
                    }
                    return self.take(piece);
                }
                Some(Err(why)) => {
                    let what = format!(
                        "GET blob {} of {}",
                        self.descriptor.digest,
                        self.route.reference().repository()
                    );
                    fault::of_body(&why, origin, &what, Step::Fetch, self.at).because(why)
                }
                None => {
                    let origin = origin.to_string();
                    self.mismatch(&format!("the body ended after {} bytes", self.at))
                        .at(origin)
                }
            };
            self.body = None;
            // A cut after bytes came is nothing unusual; silence, or a cut before any, is.
            if failure.cause() == Cause::PullStalled || self.fruitless > 0 {
                self.avoid.push(self.place.clone());
            }
            self.again(failure).await?;
        }
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes, Failure> {
        self.fruitless = 0;
        let after = self.at + piece.len() as u64;
        if after > self.descriptor.size {
            return Err(self.mismatch("more bytes came"));
        }
        self.at = after;
        if after == self.descriptor.size {
            self.finish();
        }
        Ok(piece)
    }

    /// Lets the connection go back to the pool.
    fn finish(&mut self) {
        self.body = None;
    }

    /// Waits before the rest is asked for again, or gives up.
    async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        self.fruitless += 1;
        let seen = Seen::Passing { most: u32::MAX };
        let Some(wait) = retry::next(seen, self.fruitless, self.route.retries(), fastrand::f64())
        else {
            return Err(failure);
        };
        self.route.watch().tell(|| Fact::Retry {
            what: format!("blob {} from byte {}", self.descriptor.digest, self.at),
            attempt: self.fruitless,
            wait_millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            why: failure.detail().to_owned(),
        });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let (descriptor, at) = (&self.descriptor, self.at);
        let connect = |session: Session| {
            let descriptor = descriptor.clone();
            async move { connect(&session, &descriptor, at).await }
        };
        let opened = self.route.run_avoiding(&self.avoid, Need::Content, connect);
        let (body, origin, skip, place) = opened.await?;
        self.place = place.to_string();
        self.route.serves(&self.descriptor.digest, &self.place);
        self.skip = skip;
        self.body = Some((body, origin));
        Ok(())
    }

    fn mismatch(&self, words: &str) -> Failure {
        mismatch(self.route.reference().repository(), &self.descriptor, words)
    }
}

fn mismatch(repository: &str, descriptor: &Descriptor, words: &str) -> Failure {
    Failure::new(
        Cause::DigestMismatch,
        Step::Verify,
        format!(
            "blob {} of {repository} has {} bytes by its manifest: {words}",
            descriptor.digest, descriptor.size
        ),
    )
}

/// Asks one endpoint for a blob from byte `at` on: the body, who sends it, how much of it comes before that byte, and the endpoint.
async fn connect(
    session: &Session,
    descriptor: &Descriptor,
    at: u64,
) -> Result<(Body, Origin, u64, Origin), Failure> {
    let mut asking = asking(session, Method::GET, &descriptor.digest);
    if at > 0 {
        let last = descriptor.size.saturating_sub(1);
        asking = asking.header(header::RANGE, &format!("bytes={at}-{last}"));
    }
    let got = session.ask(&asking).await?;
    let status = got.answer.status;
    if !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(refused::of_answer(session, &asking, got).await);
    }
    let origin = got.answer.url.origin.clone();
    let is_page = got
        .answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("text/html"));
    if is_page && got.elsewhere {
        return Err(Failure::new(
            Cause::BlobHostUnreachable,
            Step::Fetch,
            format!(
                "{}: {origin} answers with a web page instead of the blob",
                asking.what
            ),
        )
        .at(origin.to_string())
        .or_else([Cause::NotARegistry]));
    }
    let skip = starts_at(status, &got.answer.headers, at, descriptor.size).map_err(|words| {
        mismatch(session.target.repository(), descriptor, &words).at(origin.to_string())
    })?;
    Ok((got.answer.body, origin, skip, session.origin()?))
}

/// How many bytes of an answer come before those asked for (from `at` on); or what is wrong with it.
fn starts_at(status: StatusCode, headers: &HeaderMap, at: u64, size: u64) -> Result<u64, String> {
    if let Some(coding) = headers
        .get(header::CONTENT_ENCODING)
        .filter(|value| *value != "identity")
    {
        let coding: String = String::from_utf8_lossy(coding.as_bytes())
            .chars()
            .take(40)
            .collect();
        return Err(format!(
            "something on the way encoded the bytes as {coding:?}, which was not asked for"
        ));
    }
    match status {
        StatusCode::RANGE_NOT_SATISFIABLE => Err(format!("the server has none from byte {at} on")),
        StatusCode::PARTIAL_CONTENT => {
            let range = headers
                .get(header::CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(content_range);
            match range {
                Some((start, whole)) if start == at && whole.is_none_or(|whole| whole == size) => {
                    Ok(0)
                }
                _ => Err(format!(
                    "the server was asked for the bytes from {at} on and sent another range"
                )),
            }
        }
        // A server without ranges starts at the beginning.
        _ => match length(headers).filter(|length| *length != size) {
            Some(length) => Err(format!("the server has {length}")),
            None => Ok(at),
        },
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
}

/// `bytes 5-9/10` as start and whole size; the size may be `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let rest = value.trim().strip_prefix("bytes ")?;
    let (range, whole) = rest.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    (start <= end).then_some((start, whole))
}

/// A small blob, whole and verified.
pub(crate) async fn bytes(
    route: &Route,
    descriptor: &Descriptor,
    most: u64,
) -> Result<Bytes, Failure> {
    let digest = &descriptor.digest;
    let refuse = |cause, words: String| {
        Failure::new(
            cause,
            Step::Verify,
            format!(
                "blob {digest} of {} {words}",
                route.reference().repository()
            ),
        )
    };
    if descriptor.size > most {
        return Err(refuse(
            Cause::ImageTooLarge,
            format!(
                "has {} bytes by its manifest, more than the {most} that are read",
                descriptor.size
            ),
        ));
    }
    let mut wrong = Vec::new();
    loop {
        let mut stream = open(route, descriptor, 0).await?;
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
        let failure = refuse(
            Cause::DigestMismatch,
            format!("came as {} bytes whose digest is {got}", whole.len()),
        )
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
    Ok(BlobHead {
        size: length(&got.answer.headers),
        endpoint: got.answer.url.origin.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (value, want) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes -5-9/10", None),
        ] {
            assert_eq!(content_range(value), want, "{value}");
        }
    }
}
