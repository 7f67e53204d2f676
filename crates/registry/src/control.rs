//! How the command line reaches the registry that serves a directory: a socket in it, `control.sock`.
//!
//! One line of JSON is asked, one is answered. Only the registry's own user and root are answered.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use towline_sys::task;

use crate::collect::{Collected, Collection, Collector, Gate};
use crate::error::Error;
use crate::handlers::Registry;
use crate::server::{lock, node_name, open_shared};
use crate::storage::s3::{S3Blobs, S3Metadata, S3Options};
use crate::storage::{FileBlobs, FileMetadata, StorageError};

/// The longest line, in bytes.
const LINE: u64 = 1 << 20;
/// How long somebody may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of one directory that are read.
const ENTRIES: usize = 10_000_000;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Asked {
    Collect(Collection),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answered {
    Collected(Collected),
    Failed(String),
}

fn socket(root: &Path) -> PathBuf {
    root.join("control.sock")
}

/// Collects garbage in a registry's directory: by the registry that serves it, or here if none does. Blocks.
pub fn collect(root: &Path, how: Collection) -> Result<Collected, Error> {
    match lock(root) {
        Err(Error::InUse { .. }) => ask(root, how),
        Err(error) => Err(error),
        Ok(_lock) => {
            let gate = Gate::default();
            let collector = Collector {
                blobs: &FileBlobs::new(root.to_owned()),
                metadata: &FileMetadata::new(root.to_owned(), ENTRIES),
                gate: &gate,
            };
            collector
                .run(how, SystemTime::now())
                .map_err(Error::Collect)
        }
    }
}

/// As [`collect`], for what lies on object storage: by the registry that serves from this directory, or here as the writer.
/// Blocks, on a thread of a runtime that is for that.
pub fn collect_shared(
    root: &Path,
    storage: &S3Options,
    how: Collection,
) -> Result<Collected, Error> {
    let _lock = match lock(root) {
        Err(Error::InUse { .. }) => return ask(root, how),
        other => other?,
    };
    let node = node_name(root).map_err(|source| Error::Storage {
        root: root.to_owned(),
        source,
    })?;
    let journal = open_shared(storage, &node, "a collection of garbage")?;
    let gate = Gate::default();
    let collector = Collector {
        blobs: &S3Blobs::new(Arc::clone(&journal)),
        metadata: &S3Metadata::new(Arc::clone(&journal)),
        gate: &gate,
    };
    let done = collector.run(how, SystemTime::now());
    tokio::runtime::Handle::current().block_on(journal.give_up());
    done.map_err(Error::Collect)
}

fn ask(root: &Path, how: Collection) -> Result<Collected, Error> {
    let path = socket(root);
    let failed = |source| Error::Control {
        path: path.clone(),
        source,
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    let mut line =
        serde_json::to_vec(&Asked::Collect(how)).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(LINE));
    reader.read_line(&mut line).map_err(failed)?;
    match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
        Answered::Collected(collected) => Ok(collected),
        Answered::Failed(words) => Err(Error::Refused(words)),
    }
}

/// Listens for the command line in a directory that is this process's own. Without the socket the registry still serves.
pub(crate) fn listen(root: &Path) -> Option<UnixListener> {
    let path = socket(root);
    // One that a process before this one left.
    std::fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path);
    if let Err(error) = &listener {
        tracing::warn!(path = %path.display(), %error, "the command line cannot reach this registry");
    }
    listener.ok()
}

impl Registry {
    /// Collects garbage while everything else goes on.
    pub(crate) async fn collect(
        self: &Arc<Self>,
        how: Collection,
    ) -> Result<Collected, StorageError> {
        let this = Arc::clone(self);
        task::blocking("collect garbage", move || {
            let collector = Collector {
                blobs: &*this.blobs,
                metadata: &*this.metadata,
                gate: &this.gate,
            };
            let collected = collector.run(how, SystemTime::now());
            this.quotas.forget_all();
            collected
        })
        .await
    }

    /// Collects whenever the settings say so; never ends.
    pub(crate) async fn collect_on_schedule(self: Arc<Self>) {
        /// How often the settings are looked at.
        const LOOK: Duration = Duration::from_secs(10);
        let mut waited = Duration::ZERO;
        loop {
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
            let schedule = self.settings.get().schedule;
            if schedule.every.is_none_or(|every| waited < every) {
                continue;
            }
            waited = Duration::ZERO;
            // Where several share the storage, the writer collects.
            if self
                .shared
                .as_ref()
                .is_some_and(|shared| !shared.is_writer())
            {
                continue;
            }
            let how = Collection {
                dry_run: false,
                grace: schedule.grace,
            };
            match self.collect(how).await {
                Ok(done) => tracing::info!(
                    blobs = done.blobs,
                    bytes = done.bytes,
                    links = done.links,
                    "collected garbage"
                ),
                Err(error) => {
                    let error = task::chain(&error);
                    tracing::error!(error, "collect garbage");
                }
            }
        }
    }

    /// Answers the command line; never ends.
    pub(crate) async fn control(self: Arc<Self>, listener: Option<UnixListener>) {
        let Some(listener) = listener else {
            return std::future::pending().await;
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if let Err(error) = self.converse(stream).await {
                tracing::debug!(%error, "control");
            }
        }
    }

    async fn converse(self: &Arc<Self>, mut stream: tokio::net::UnixStream) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let peer = stream.peer_cred()?.uid();
        let own = std::fs::metadata("/proc/self")?.uid();
        if peer != own && peer != 0 {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        let (read, mut write) = stream.split();
        let mut line = String::new();
        let mut reader = tokio::io::BufReader::new(read.take(LINE));
        tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
        let answered = match serde_json::from_str(&line)? {
            Asked::Collect(how) => match self.collect(how).await {
                Ok(collected) => Answered::Collected(collected),
                Err(error) => Answered::Failed(task::chain(&error)),
            },
        };
        let mut line = serde_json::to_vec(&answered)?;
        line.push(b'\n');
        write.write_all(&line).await
    }
}
