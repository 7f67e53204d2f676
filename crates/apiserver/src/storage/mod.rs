//! The embedded store: objects on disk in one redb file, the same objects in memory for reading, and a log of changes.
//!
//! Every write gets the next revision and is answered only after a durable commit; writes that wait together share one commit.
//! Readers never touch the disk. The newest changes stay in a ring (in memory and in the `log` table), which serves watches
//! and lists at an older revision; what has fallen out of the ring is "compacted", and asking for it is an `Expired`.

mod disk;
mod state;
mod writer;

use std::path::Path;
use std::sync::{Arc, RwLock};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use state::State;
pub(crate) use state::{Change, Event, Expired, Stored};

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file could not be opened, read or written.
    #[error("cannot {step} the object store")]
    Disk {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: Box<redb::Error>,
    },
    /// A record on disk is not what this program writes.
    #[error("the object store holds a damaged record under {key:?}: {why}")]
    Damaged {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file was written by a newer program.
    #[error("the object store has format {found}, this program knows formats up to {known}")]
    Newer {
        /// The format on disk.
        found: u64,
        /// The newest format this program reads.
        known: u64,
    },
    /// The writer thread has stopped.
    #[error("the object store is closed")]
    Closed,
}

/// What must hold of the stored object for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No object under this key.
    Absent,
    /// An object with exactly this revision.
    Revision(u64),
}

/// Why a write did not happen.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The expectation did not hold; the current object, if any.
    Conflict,
    /// The disk refused.
    Store(Arc<StoreError>),
}

/// Bounds of the change log.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Changes kept for watches and for lists at an older revision.
    pub events: usize,
    /// Bytes of serialized objects these changes may hold together.
    pub bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            events: 8192,
            bytes: 64 << 20,
        }
    }
}

struct Operation {
    key: Arc<str>,
    expect: Expect,
    /// `None` deletes.
    value: Option<Value>,
    now: i64,
    reply: oneshot::Sender<Result<Stored, WriteError>>,
}

/// A handle on the store; clones share it. The writer ends when the last one is dropped or [`Store::close`] is called.
#[derive(Clone)]
pub(crate) struct Store {
    state: Arc<RwLock<State>>,
    revision: watch::Receiver<u64>,
    /// `None` asks the writer to stop.
    operations: mpsc::Sender<Option<Operation>>,
    writer: Arc<std::sync::Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &*self.revision.borrow())
            .finish_non_exhaustive()
    }
}

/// Objects of a list with their keys, in key order.
pub(crate) type Listed = Vec<(Arc<str>, Stored)>;

impl Store {
    /// Opens or creates the store in the file `path`.
    pub(crate) fn open(path: &Path, limits: LogLimits) -> Result<Self, StoreError> {
        let (disk, state) = disk::Disk::open(path, limits)?;
        let (sender, revision) = watch::channel(state.revision());
        let state = Arc::new(RwLock::new(state));
        let (operations, queue) = mpsc::channel(1024);
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("apiserver-store".to_owned())
            .spawn(move || writer::run(disk, &shared, queue, &sender))
            .map_err(|error| StoreError::Disk {
                step: "start the writer of",
                source: Box::new(redb::Error::Io(error)),
            })?;
        Ok(Self {
            state,
            revision,
            operations,
            writer: Arc::new(std::sync::Mutex::new(Some(thread))),
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // A poisoned lock means the writer panicked while applying; what it holds is still a committed state.
        self.state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The revision of the newest committed write.
    pub(crate) fn revision(&self) -> u64 {
        self.read().revision()
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Stored> {
        self.read().get(key)
    }

    /// All objects under `prefix` now, or as they were at revision `at`, with the revision the answer is true for.
    pub(crate) fn list(&self, prefix: &str, at: Option<u64>) -> Result<(Listed, u64), Expired> {
        self.read().list(prefix, at)
    }

    /// Changes under `prefix` with a revision above `after`, at most `max`, and the revision up to which that is complete.
    pub(crate) fn changes(
        &self,
        prefix: &str,
        after: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), Expired> {
        self.read().changes(prefix, after, max)
    }

    /// Wakes whenever the revision moves.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Creates or replaces an object; answered after the commit. The stored value carries its `metadata.resourceVersion`.
    pub(crate) async fn put(
        &self,
        key: Arc<str>,
        expect: Expect,
        value: Value,
    ) -> Result<Stored, WriteError> {
        self.submit(key, expect, Some(value)).await
    }

    /// Deletes an object; the answer is its last state with the revision of the deletion.
    pub(crate) async fn delete(&self, key: Arc<str>, expect: Expect) -> Result<Stored, WriteError> {
        self.submit(key, expect, None).await
    }

    async fn submit(
        &self,
        key: Arc<str>,
        expect: Expect,
        value: Option<Value>,
    ) -> Result<Stored, WriteError> {
        let closed = || WriteError::Store(Arc::new(StoreError::Closed));
        let (reply, answer) = oneshot::channel();
        let now = jiff::Timestamp::now().as_second();
        self.operations
            .send(Some(Operation {
                key,
                expect,
                value,
                now,
                reply,
            }))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Lets the writer finish what was submitted before and waits for it; later writes fail. Blocking.
    pub(crate) fn close(&self) {
        self.operations.blocking_send(None).ok();
        let thread = self
            .writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer of the object store panicked");
        }
    }
}

/// The revision an object carries in its metadata.
pub(crate) fn state_revision(value: &Value) -> Option<u64> {
    value
        .get("metadata")?
        .get("resourceVersion")?
        .as_str()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
