//! How far a copy is: drawn on a terminal, as plain lines elsewhere, nothing for what ends at once; and what came of it.

use std::io::IsTerminal as _;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;
use towline_oci::{Descriptor, Digest};
use towline_sys::task;

use crate::exit::OK;
use crate::output::{self, Format};

/// Progress appears only when a copy takes longer than this.
const SOON: Duration = Duration::from_millis(250);
/// On a terminal it is drawn so often.
const DRAWN: Duration = Duration::from_millis(100);
/// Elsewhere a line appears so often.
const LINES: Duration = Duration::from_secs(10);

/// What was done so far, and is still to be done.
#[derive(Debug, Default)]
struct Numbers {
    /// Bytes of blobs that were read, also of one that is not whole yet.
    read: AtomicU64,
    /// Bytes of blobs that were there already.
    spared: AtomicU64,
    /// Bytes of all blobs of the manifests that were read so far.
    known: AtomicU64,
}

impl Numbers {
    fn shown(&self, began: Instant) -> String {
        let (read, spared) = (self.read.load(Relaxed), self.spared.load(Relaxed));
        let known = self.known.load(Relaxed).max(read + spared);
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = (read.saturating_mul(1000)).checked_div(millis).unwrap_or(0);
        let left = (known - read - spared).checked_div(rate);
        let left = left.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
        format!(
            "{} of {}, {}/s{left}",
            output::size(read + spared),
            output::size(known),
            output::size(rate)
        )
    }
}

/// A copy that runs: what it did, told while it runs and at its end.
pub(super) struct Job {
    format: Format,
    began: Instant,
    numbers: Arc<Numbers>,
    manifests: u64,
    blobs: u64,
    there: u64,
    drawn: bool,
    task: JoinHandle<()>,
}

/// What came of a copy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Carried {
    api_version: &'static str,
    kind: &'static str,
    /// The digest of what was copied.
    digest: String,
    manifests: u64,
    /// Blobs that were carried over.
    blobs: u64,
    /// Their bytes.
    bytes: u64,
    /// Blobs that were there, or were mounted.
    blobs_there: u64,
    millis: u64,
}

impl Job {
    /// Begins to show. `what` says what is done to what: `copying a to b`.
    pub(super) fn begin(what: String, format: Format) -> Self {
        let (numbers, began) = (Arc::<Numbers>::default(), Instant::now());
        let drawn = std::io::stderr().is_terminal() && format == Format::Text;
        let told = Arc::clone(&numbers);
        let task = task::spawn("progress", async move {
            tokio::time::sleep(if drawn { SOON } else { LINES }).await;
            loop {
                let line = format!("{what}: {}", told.shown(began));
                if drawn {
                    output::redraw(1, &line);
                } else {
                    output::note(line);
                }
                tokio::time::sleep(if drawn { DRAWN } else { LINES }).await;
            }
        });
        Self {
            format,
            began,
            numbers,
            manifests: 0,
            blobs: 0,
            there: 0,
            drawn,
            task,
        }
    }

    /// A manifest names these blobs.
    pub(super) fn named<'a>(&self, parts: impl IntoIterator<Item = &'a Descriptor>) {
        let bytes: u64 = parts.into_iter().map(|part| part.size).sum();
        self.numbers.known.fetch_add(bytes, Relaxed);
    }

    /// A reader whose bytes are counted.
    pub(super) fn reading<R>(&self, reader: R) -> Counted<R> {
        Counted(reader, Arc::clone(&self.numbers))
    }

    /// A blob need not be carried.
    pub(super) fn was_there(&mut self, part: &Descriptor) {
        self.there += 1;
        self.numbers.spared.fetch_add(part.size, Relaxed);
    }

    /// A blob was carried.
    pub(super) fn carried_blob(&mut self) {
        self.blobs += 1;
    }

    /// A manifest was carried.
    pub(super) fn carried_manifest(&mut self) {
        self.manifests += 1;
    }

    /// Ends it, and says what came of it.
    pub(super) fn tell(self, digest: &Digest) -> anyhow::Result<ExitCode> {
        self.clear();
        let bytes = self.numbers.read.load(Relaxed);
        if self.format != Format::Text {
            let carried = Carried {
                api_version: super::API_VERSION,
                kind: "Carried",
                digest: digest.to_string(),
                manifests: self.manifests,
                blobs: self.blobs,
                bytes,
                blobs_there: self.there,
                millis: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            output::document(self.format, &carried)?;
            return Ok(ExitCode::from(OK));
        }
        output::line(digest)?;
        output::note(format!(
            "{} manifests and {} blobs ({}) carried, {} blobs were there",
            self.manifests,
            self.blobs,
            output::size(bytes),
            self.there
        ));
        Ok(ExitCode::from(OK))
    }

    /// Takes the line away that was drawn last.
    fn clear(&self) {
        self.task.abort();
        if self.drawn && self.began.elapsed() >= SOON {
            output::redraw(1, "");
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Before an error is told.
        self.clear();
    }
}

/// A reader whose bytes are counted.
pub(super) struct Counted<R>(R, Arc<Numbers>);

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, into);
        let more = into.filled().len().saturating_sub(before);
        self.1.read.fetch_add(more as u64, Relaxed);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_and_what_is_left_is_shown() {
        let numbers = Numbers {
            read: 20_000_000.into(),
            spared: 10_000_000.into(),
            known: 80_000_000.into(),
        };
        let began = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let shown = numbers.shown(began);
        assert!(
            shown.starts_with("30.0 MB of 80.0 MB, 2.0 MB/s, 2"),
            "{shown}"
        );
        let nothing = Numbers::default().shown(Instant::now());
        assert_eq!(nothing, "0 B of 0 B, 0 B/s");
    }
}
