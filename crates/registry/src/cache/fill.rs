//! One download of a blob, and everyone who reads it while it comes.
//!
//! The bytes go to a staging file; readers follow behind. The last byte is kept back until the digest was found right and the blob
//! kept, so that no client ever holds the whole of a blob that is not what its digest says; of a small blob all bytes are.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::{mpsc, watch};
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{BlobStream, Repository as Remote, is_web_page};
use towline_oci::{Descriptor, Digest};
use towline_sys::fs::FsError;
use towline_sys::task;
use uuid::Uuid;

use super::trouble::Trouble;
use crate::body::Body;
use crate::storage::StorageError;

/// Pieces that wait between the network and the disk.
const QUEUE: usize = 8;
/// A blob of so many bytes is verified before anybody gets its first byte.
const SMALL: u64 = 64 << 10;
/// Bytes that tell whether a web page came.
const START: usize = 256;
/// The most that a reader is given at a time, in bytes.
const CHUNK: u64 = 256 << 10;

/// How far a download is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The blob's size, as soon as it is known.
    pub(crate) size: Option<u64>,
    /// Bytes that are in the file.
    written: u64,
    /// It looks like a web page: nobody gets any of it before its digest was found right.
    is_suspect: bool,
    /// How it ended.
    pub(crate) end: Option<Result<(), Trouble>>,
}

impl Progress {
    /// Bytes that readers may have.
    fn readable(&self) -> u64 {
        match (&self.end, self.size) {
            (Some(Ok(())), _) => self.written,
            // Whoever gets nothing yet can still be told why there is nothing.
            (_, Some(size)) if size <= SMALL || self.is_suspect => 0,
            (_, Some(size)) => self.written.min(size.saturating_sub(1)),
            (_, None) => 0,
        }
    }

    /// Whether a client can be told something: that bytes come, or that none will.
    fn is_under_way(&self) -> bool {
        self.end.is_some() || self.readable() > 0
    }
}

/// A download that runs, or ran a moment ago.
#[derive(Debug)]
pub(crate) struct Fill {
    progress: watch::Sender<Progress>,
    /// Open for reading; it stays so wherever the file goes.
    file: File,
    path: PathBuf,
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Gone where it was kept. What cannot be removed now is removed at the next start.
        std::fs::remove_file(&self.path).ok();
    }
}

impl Fill {
    /// Makes the staging file, in an existing directory.
    pub(crate) fn begin(folder: &Path) -> Result<(Arc<Self>, File), StorageError> {
        let path = folder.join(Uuid::new_v4().to_string());
        let open = |options: &mut std::fs::OpenOptions| {
            options
                .open(&path)
                .map_err(|error| FsError::new("open", &path, error))
        };
        let writer = open(File::options().create_new(true).append(true))?;
        let file = open(File::options().read(true))?;
        let fill = Self {
            progress: watch::Sender::default(),
            file,
            path,
        };
        Ok((Arc::new(fill), writer))
    }

    /// Waits until bytes come, or none will; then says how far it is.
    pub(crate) async fn under_way(&self) -> Progress {
        let mut following = self.progress.subscribe();
        // The sender is in `self` and lives.
        match following.wait_for(Progress::is_under_way).await {
            Ok(progress) => progress.clone(),
            Err(_) => Progress::default(),
        }
    }

    /// Ends it badly.
    pub(crate) fn fail(&self, trouble: Trouble) {
        self.progress.send_modify(|progress| {
            progress.end.get_or_insert(Err(trouble));
        });
    }

    /// Ends it well.
    pub(crate) fn done(&self) {
        self.progress.send_modify(|progress| {
            progress.end.get_or_insert(Ok(()));
        });
    }

    /// Downloads a blob into the staging file and verifies it. `arrived` is told of bytes that are on the disk, and `keep` takes the file
    /// over or leaves it. True if it was kept.
    pub(crate) async fn download(
        self: &Arc<Self>,
        writer: File,
        remote: &Remote,
        wanted: Descriptor,
        arrived: impl Fn(u64) + Send + 'static,
        keep: impl FnOnce(&Path) -> Result<bool, StorageError> + Send + 'static,
    ) -> Result<bool, Failed> {
        let stream = remote.blob(&wanted, 0).await?;
        let endpoint = stream.endpoint().to_owned();
        self.progress
            .send_modify(|progress| progress.size = Some(wanted.size));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let this = Arc::clone(self);
        let digest = wanted.digest.clone();
        let writing = task::blocking("write a blob", move || {
            this.write(writer, &digest, receiver, arrived, keep)
        });
        let (written, fed) = tokio::join!(writing, feed(stream, sender));
        // Where both failed, the network did first, unless the disk stopped the reading.
        fed?;
        match written? {
            Outcome::Whole { kept } => Ok(kept),
            Outcome::Cut => Err(Failed::Upstream(
                Failure::new(
                    Cause::ConnectionReset,
                    Step::Fetch,
                    format!("blob {} was cut", wanted.digest),
                )
                .at(endpoint),
            )),
            Outcome::Page => Err(Failed::Upstream(
                Failure::new(
                    Cause::NotARegistry,
                    Step::Fetch,
                    format!("blob {} came as a web page", wanted.digest),
                )
                .or_else([Cause::DigestMismatch])
                .at(endpoint),
            )),
            Outcome::Wrong(actual) => Err(Failed::Upstream(
                Failure::new(
                    Cause::DigestMismatch,
                    Step::Verify,
                    format!(
                        "blob {} came as {} bytes whose digest is {actual}",
                        wanted.digest, wanted.size
                    ),
                )
                .at(endpoint),
            )),
        }
    }

    fn write(
        &self,
        mut file: File,
        digest: &Digest,
        mut pieces: mpsc::Receiver<Piece>,
        arrived: impl Fn(u64),
        keep: impl FnOnce(&Path) -> Result<bool, StorageError>,
    ) -> Result<Outcome, StorageError> {
        let mut verifier = digest.verifier();
        let mut start = Vec::new();
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    file.write_all(&bytes)
                        .map_err(|error| FsError::new("write", &self.path, error))?;
                    verifier.update(&bytes);
                    start.extend(bytes.iter().take(START.saturating_sub(start.len())));
                    arrived(bytes.len() as u64);
                    self.progress.send_modify(|progress| {
                        progress.written += bytes.len() as u64;
                        progress.is_suspect = is_web_page(&start);
                    });
                }
                Some(Piece::End) => break,
                None => return Ok(Outcome::Cut),
            }
        }
        let actual = verifier.finish();
        if actual != *digest {
            let is_page = is_web_page(&start);
            return Ok(if is_page {
                Outcome::Page
            } else {
                Outcome::Wrong(actual)
            });
        }
        file.sync_all()
            .map_err(|error| FsError::new("sync", &self.path, error))?;
        let kept = keep(&self.path)?;
        Ok(Outcome::Whole { kept })
    }

    /// The bytes from the first to before the second place, as they come.
    pub(crate) fn body(self: Arc<Self>, from: u64, to: u64) -> Body {
        let following = self.progress.subscribe();
        let reader = Reader {
            fill: self,
            following,
            at: from,
            to,
        };
        let pieces = futures::stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Ok(None) => None,
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Body::stream(StreamBody::new(pieces))
    }
}

/// Why a download failed, while whose fault it was still matters.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The upstream's.
    Upstream(Failure),
    /// The disk's.
    Storage(StorageError),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

enum Outcome {
    /// It came whole and right.
    Whole { kept: bool },
    /// It is a web page.
    Page,
    /// The bytes stopped before the end.
    Cut,
    /// They have another digest.
    Wrong(Digest),
}

async fn feed(mut stream: BlobStream, sender: mpsc::Sender<Piece>) -> Result<(), Failure> {
    while let Some(piece) = stream.next().await {
        // The other side is gone when the disk failed: it says why.
        if sender.send(Piece::Bytes(piece?)).await.is_err() {
            return Ok(());
        }
    }
    drop(sender.send(Piece::End).await);
    Ok(())
}

/// One client that follows a download.
struct Reader {
    fill: Arc<Fill>,
    following: watch::Receiver<Progress>,
    at: u64,
    to: u64,
}

impl Reader {
    /// Waits until there are bytes beyond a place, or the end; up to where bytes may be read.
    async fn readable_beyond(&mut self, at: u64) -> io::Result<u64> {
        let is_beyond = |progress: &Progress| progress.end.is_some() || progress.readable() > at;
        let progress = self.following.wait_for(is_beyond).await;
        let progress = progress.map_err(|_| io::Error::other("the download was given up"))?;
        if let Some(Err(_)) = progress.end {
            return Err(io::Error::other(
                "the upstream did not send the rest of the blob, or sent another one",
            ));
        }
        Ok(progress.readable())
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.to {
            return Ok(None);
        }
        let at = self.at;
        let readable = self.readable_beyond(at).await?;
        let length = CHUNK.min(readable.min(self.to).saturating_sub(at));
        if length == 0 {
            return Err(io::Error::other("the blob ended early"));
        }
        let fill = Arc::clone(&self.fill);
        let bytes = task::blocking("read a blob that comes", move || {
            // At most CHUNK.
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            fill.file.read_exact_at(&mut bytes, at).map(|()| bytes)
        })
        .await?;
        self.at += length;
        Ok(Some(bytes.into()))
    }
}
