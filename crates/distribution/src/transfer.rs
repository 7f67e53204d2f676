//! The bytes of a blob, or of a part of it, on their way: cut connections are taken up where they ended.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Instant;
use towline_cause::{Cause, Failure, Step};
use towline_oci::Descriptor;

use crate::blob::{asking, length, mismatch, page_instead};
use crate::body::Body;
use crate::client::BlobStream;
use crate::endpoint::route::{Need, Route};
use crate::facts::Fact;
use crate::fault;
use crate::pace::{Pacer, Slow};
use crate::page::{self, is_web_page, says_page};
use crate::refused;
use crate::retry::{self, Seen};
use crate::session::Session;
use crate::url::Origin;

/// After a cut the rest is asked for at once where so many bytes came since the last: what cuts then is no server in trouble.
const ENOUGH: u64 = 256 << 10;

/// A part of a blob on its way: what was given out already, and the connection that brings the rest.
struct Transfer {
    route: Route,
    descriptor: Descriptor,
    /// Bytes of the blob before this were given out, or were there before.
    at: u64,
    /// The first byte that is not wanted.
    end: u64,
    /// Bytes to throw away first: a server without ranges starts at 0.
    skip: u64,
    body: Option<(Body, Origin)>,
    /// The endpoint that serves.
    place: String,
    /// The endpoints that served badly: others are asked before them.
    avoid: Vec<String>,
    /// Attempts since the last byte arrived.
    fruitless: u32,
    /// Times since then that nobody took the connection: those use up no attempt.
    away: u32,
    /// When the last byte arrived.
    quiet_since: Instant,
    /// Bytes since the last cut.
    since: u64,
    pacer: Pacer,
    /// Connections in a row that were too slow.
    slow: u32,
    ended: bool,
}

/// Opens the bytes `range` of a blob. A server that knows no ranges sends the rest of the blob instead; the stream's own range says so.
pub(crate) async fn open(
    route: &Route,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<BlobStream, Failure> {
    let mut transfer = Transfer {
        route: route.clone(),
        place: String::new(),
        avoid: route.distrusted(&descriptor.digest),
        descriptor: descriptor.clone(),
        at: range.start,
        end: range.end.min(descriptor.size),
        skip: 0,
        body: None,
        fruitless: 0,
        away: 0,
        quiet_since: Instant::now(),
        since: 0,
        pacer: Pacer::new(route.pace()),
        slow: 0,
        ended: false,
    };
    if range.start > descriptor.size {
        let words = format!("{} bytes are there already", range.start);
        return Err(transfer.mismatch(&words));
    }
    let mut endpoint = route.first_place();
    if range.start < transfer.end {
        let partial = transfer.connect_patiently().await?;
        if !partial {
            transfer.end = descriptor.size;
        }
        if let Some((_, origin)) = &transfer.body {
            endpoint = origin.to_string();
        }
    }
    let range = transfer.at..transfer.end;
    let stream = futures::stream::unfold(transfer, |mut transfer| async move {
        let piece = transfer.next().await?;
        Some((piece, transfer))
    });
    Ok(BlobStream::new(stream.fuse().boxed(), endpoint, range))
}

impl Transfer {
    /// The next piece; `None` after the last one or after a failure.
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if self.ended || self.at >= self.end {
            return None;
        }
        let piece = self.piece().await;
        self.ended = piece.is_err();
        Some(piece)
    }

    async fn piece(&mut self) -> Result<Bytes, Failure> {
        loop {
            if self.body.is_none()
                && let Err(failure) = self.connect_patiently().await
            {
                // Whatever cut the connection may take a moment to pass; what is final stays so.
                let is_final =
                    matches!(failure.cause(), Cause::DigestMismatch | Cause::RateLimited);
                if is_final || is_away(&failure) || !failure.cause().transient() {
                    return Err(failure);
                }
                self.again(failure).await?;
                continue;
            }
            let Some((body, origin)) = &mut self.body else {
                continue;
            };
            let asked = Instant::now();
            let failure = match body.next().await {
                Some(Ok(mut piece)) => {
                    let waited = asked.elapsed();
                    let slow = self.pacer.came(waited, piece.len() as u64);
                    if self.skip > 0 {
                        let skipped = self.skip.min(piece.len() as u64);
                        self.skip -= skipped;
                        // At most the piece's own length, which is a usize.
                        piece = piece.split_off(usize::try_from(skipped).unwrap_or(piece.len()));
                    }
                    if let Some(slow) = slow {
                        self.leave(slow)?;
                    }
                    if piece.is_empty() {
                        continue;
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
            if failure.cause() == Cause::PullStalled && !self.route.is_patient() {
                return Err(failure);
            }
            // A cut after bytes came is nothing unusual; silence, or a cut before any, is.
            if failure.cause() == Cause::PullStalled || self.fruitless > 0 {
                self.avoid.push(self.place.clone());
            }
            self.again(failure).await?;
        }
    }

    /// A connection was too slow, or fast enough again. The rest comes over another one, where that may help: the pace of the network
    /// itself is what it is.
    fn leave(&mut self, slow: Slow) -> Result<(), Failure> {
        let Slow::Yes(rate) = slow else {
            self.slow = 0;
            return Ok(());
        };
        self.slow += 1;
        let pace = self.route.pace();
        let failure = Failure::new(
            Cause::PullStalled,
            Step::Fetch,
            format!(
                "GET blob {} of {} from {}: {rate} bytes a second came over {} s, less than the {} that a connection has to bring",
                self.descriptor.digest,
                self.route.reference().repository(),
                self.place,
                pace.over.as_secs_f32(),
                pace.least
            ),
        )
        .at(self.place.clone());
        if self.slow >= self.route.retries().attempts {
            return Err(failure);
        }
        self.body = None;
        self.avoid.push(self.place.clone());
        self.tell(&failure, Duration::ZERO);
        Ok(())
    }

    fn take(&mut self, mut piece: Bytes) -> Result<Bytes, Failure> {
        (self.fruitless, self.away) = (0, 0);
        self.quiet_since = Instant::now();
        let mut after = self.at + piece.len() as u64;
        if after > self.descriptor.size {
            return Err(self.mismatch("more bytes came"));
        }
        if after > self.end {
            // Of a part more may come, from a server that sends the rest; nobody waits for that.
            let wanted = usize::try_from(self.end - self.at).unwrap_or(piece.len());
            piece.truncate(wanted);
            after = self.end;
        }
        self.since += piece.len() as u64;
        self.at = after;
        if after == self.end {
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
        let random = fastrand::f64();
        let Some(mut wait) = retry::next(seen, self.fruitless, self.route.retries(), random) else {
            return Err(failure);
        };
        if std::mem::take(&mut self.since) >= ENOUGH {
            wait = Duration::ZERO;
        }
        self.tell(&failure, wait);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Asks for the bytes that are missing, also while a host that has answered takes no connection: it restarts, and what was asked of it is
    /// asked again once it is back.
    async fn connect_patiently(&mut self) -> Result<bool, Failure> {
        loop {
            let failure = match self.connect().await {
                Err(failure) if is_away(&failure) && self.route.has_answered() => failure,
                connected => return connected,
            };
            // Whoever has answered is there under this name: that it is this machine itself explains nothing.
            let failure = match failure.cause() {
                Cause::RegistryIsLocalhost => failure.of_cause(Cause::ConnectionRefused),
                _ => failure,
            };
            self.away += 1;
            let quiet = self.quiet_since.elapsed();
            let random = fastrand::f64();
            let retries = self.route.retries();
            let Some(wait) = retry::while_away(quiet, self.away, retries, random) else {
                let words = format!(
                    "; it had answered before, and was waited for {} s",
                    quiet.as_secs()
                );
                return Err(failure.adding(&words));
            };
            self.tell_of(&failure, self.away, wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, failure: &Failure, wait: Duration) {
        self.tell_of(failure, self.fruitless, wait);
    }

    fn tell_of(&self, failure: &Failure, attempt: u32, wait: Duration) {
        self.route.watch().tell(|| Fact::Retry {
            what: format!("blob {} from byte {}", self.descriptor.digest, self.at),
            attempt,
            wait_millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            why: failure.detail().to_owned(),
        });
    }

    /// Asks for the bytes that are missing; false where the server sends the rest of the blob, whatever was asked for.
    async fn connect(&mut self) -> Result<bool, Failure> {
        let (descriptor, range) = (&self.descriptor, self.at..self.end);
        let connect = |session: Session| {
            let (descriptor, range) = (descriptor.clone(), range.clone());
            async move { connect(&session, &descriptor, range).await }
        };
        let opened = self.route.run_avoiding(&self.avoid, Need::Content, connect);
        let Opened {
            body,
            origin,
            starts,
            place,
        } = opened.await?;
        self.place = place.to_string();
        self.route.serves(&self.descriptor.digest, &self.place);
        self.skip = match starts {
            Starts::There => 0,
            Starts::AtZero => self.at,
        };
        self.body = Some((body, origin));
        self.pacer.restart();
        let partial = self.end < self.descriptor.size;
        Ok(!partial || starts == Starts::There)
    }

    fn mismatch(&self, words: &str) -> Failure {
        mismatch(self.route.reference().repository(), &self.descriptor, words)
    }
}

/// An endpoint's answer.
struct Opened {
    body: Body,
    origin: Origin,
    starts: Starts,
    place: Origin,
}

/// Which byte of the blob is an answer's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// The one that was asked for, of the range that was asked for.
    There,
    /// The blob's first: the server knows no ranges, or was asked for everything.
    AtZero,
}

/// Asks one endpoint for a part of a blob.
async fn connect(
    session: &Session,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<Opened, Failure> {
    let mut asking = asking(session, Method::GET, &descriptor.digest);
    if range.start > 0 || range.end < descriptor.size {
        let last = range.end.saturating_sub(1);
        asking = asking.header(header::RANGE, &format!("bytes={}-{last}", range.start));
    }
    let got = session.ask(&asking).await?;
    let status = got.answer.status;
    if !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(refused::of_answer(session, &asking, got).await);
    }
    let origin = got.answer.url.origin.clone();
    let headers = &got.answer.headers;
    if says_page(headers, &descriptor.digest) {
        return Err(page_instead(&origin, &asking.what, got.elsewhere));
    }
    let starts = match starts_at(status, headers, range.start, descriptor.size) {
        Ok(starts) => starts,
        Err(words) => {
            let (limit, time) = (page::ENOUGH, session.shared.transport.timeouts.idle);
            let start = got.answer.body.read_some(limit, time).await;
            if is_web_page(&start) {
                return Err(page_instead(&origin, &asking.what, got.elsewhere));
            }
            let failure = mismatch(session.target.repository(), descriptor, &words);
            return Err(failure.at(origin.to_string()));
        }
    };
    Ok(Opened {
        body: got.answer.body,
        origin,
        starts,
        place: session.origin()?,
    })
}

/// Whether nobody takes connections where somebody did, or cuts each one before it answers: what stands before a registry that restarts does.
fn is_away(failure: &Failure) -> bool {
    matches!(
        failure.cause(),
        Cause::ConnectionRefused | Cause::RegistryIsLocalhost | Cause::ConnectionReset
    )
}

/// Where an answer starts that was to start at `at`; or what is wrong with it.
fn starts_at(
    status: StatusCode,
    headers: &HeaderMap,
    at: u64,
    size: u64,
) -> Result<Starts, String> {
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
                    Ok(Starts::There)
                }
                _ => Err(format!(
                    "the server was asked for the bytes from {at} on and sent another range"
                )),
            }
        }
        // A server without ranges starts at the beginning.
        _ => match length(headers).filter(|length| *length != size) {
            Some(length) => Err(format!("the server has {length}")),
            None => Ok(Starts::AtZero),
        },
    }
}

/// `bytes 5-9/10` as start and whole size; the size may be `*`.
pub(crate) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
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
