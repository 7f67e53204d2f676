//! How far a copy is: drawn on a terminal, as plain lines elsewhere, nothing for what ends at once; and what came of it.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;
use towline_oci::{Descriptor, Digest};
use towline_sys::task;

use crate::exit::OK;
use crate::output::{self, DRAWN, Format, LINES, SOON};

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
        let known = self.known.load(Relaxed).max(read.saturating_add(spared));
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = (read.saturating_mul(1000)).checked_div(millis).unwrap_or(0);
        let there = read.saturating_add(spared);
        let left = (known - there).checked_div(rate);
        let left = left.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
        format!(
            "{} of {}, {}/s{left}",
            output::size(there),
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
    /// Blobs whose bytes were counted.
    read: HashSet<Digest>,
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
                let stand = told.shown(began);
                if drawn {
                    output::redraw(1, &output::fit(&what, &stand, output::columns()));
                } else {
                    output::note(format!("{what}: {stand}"));
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
            read: HashSet::new(),
            drawn,
            task,
        }
    }

    /// A manifest names these blobs. Their sizes are what it says, so that any number may come here.
    pub(super) fn named<'a>(&self, parts: impl IntoIterator<Item = &'a Descriptor>) {
        for part in parts {
            add(&self.numbers.known, part.size);
        }
    }

    /// A reader of a blob whose bytes are counted: each once, however often the blob is read.
    pub(super) fn reading<R>(&mut self, part: &Descriptor, reader: R) -> Counted<R> {
        let is_first = self.read.insert(part.digest.clone());
        let left = if is_first { part.size } else { 0 };
        Counted(reader, Arc::clone(&self.numbers), left)
    }

    /// A blob need not be carried.
    pub(super) fn was_there(&mut self, part: &Descriptor) {
        self.there += 1;
        add(&self.numbers.spared, part.size);
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

/// Adds to a number that may not run over.
fn add(number: &AtomicU64, more: u64) {
    let added = number.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_add(more)));
    debug_assert!(added.is_ok(), "it is always there to be changed");
}

/// A reader of which so many bytes more are counted.
pub(super) struct Counted<R>(R, Arc<Numbers>, u64);

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, into);
        let more = into.filled().len().saturating_sub(before);
        let more = self.2.min(more as u64);
        self.2 -= more;
        add(&self.1.read, more);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_blob_counts_once_and_no_number_runs_over() {
        let mut job = Job::begin("copying a".to_owned(), Format::Json);
        let part = |size| Descriptor::new("x", Digest::of(b"12345"), size);
        job.named([&part(u64::MAX), &part(u64::MAX)]);
        job.was_there(&part(u64::MAX));
        for _ in 0..2 {
            let mut all = Vec::new();
            let mut reader = job.reading(&part(5), &b"12345"[..]);
            reader.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"12345");
        }
        assert_eq!(job.numbers.read.load(Relaxed), 5);
        assert!(job.numbers.shown(job.began).contains("18446744.1 TB"));
    }

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
