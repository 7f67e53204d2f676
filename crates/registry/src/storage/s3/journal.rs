//! The log: entries are added by the writer and read by all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::client::{Client, If, Put};
use super::lease::{self, Lease};
use super::options::{Role, S3Error, S3Options};
use super::state::{Entry, Op, State};
use crate::storage::StorageError;

/// The largest entry, in bytes.
const ENTRY_LIMIT: usize = 64 << 20;
/// The largest snapshot, in bytes.
const SNAPSHOT_LIMIT: usize = 1 << 30;
/// Entries that are fetched at once at the start.
const FETCHED: usize = 16;
/// How long a reader answers from what it read.
const FRESH: Duration = Duration::from_millis(250);
/// How often a reader looks whether what it would read next was taken away long ago; more often than anything is taken away.
const BEHIND: Duration = Duration::from_secs(30);
/// Attempts at reading a snapshot while the writer replaces it.
const LOADS: u32 = 5;
/// How long the writer's address is believed.
const ADDRESS: Duration = Duration::from_secs(5);
/// Batches whose outcome is remembered for those who wait for it.
const OUTCOMES: usize = 64;

/// Where this process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Writer,
    Reader,
}

/// Changes that wait to be written together.
#[derive(Debug, Default)]
struct Queue {
    ops: Vec<Op>,
    batch: u64,
    outcomes: BTreeMap<u64, Result<(), StorageError>>,
}

/// What whoever reads or writes the end of the log must have.
#[derive(Debug, Default)]
struct Tail {
    nonce: u64,
    /// When the last reading began that came to the end.
    synced: Option<Instant>,
    snapshot: u64,
    /// When it was last looked whether a snapshot is further than this.
    looked: Option<Instant>,
}

/// The log and what it comes to.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) client: Client,
    pub(super) handle: Handle,
    place: String,
    lease: Mutex<Option<(Lease, String)>>,
    instance: String,
    beats_every: Duration,
    snapshot_every: u64,
    pub(super) log_kept: Duration,
    state: RwLock<State>,
    tail: Mutex<Tail>,
    queue: Mutex<Queue>,
    standing: RwLock<Standing>,
    writer: Mutex<Option<(Instant, Option<String>)>>,
    /// When the storage was asked last whether it is there, and whether it was.
    pub(super) answered: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The outcome of a batch for everybody who is part of it.
fn again(outcome: &Result<(), StorageError>) -> Result<(), StorageError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(StorageError::NotWriter { writer }) => Err(StorageError::NotWriter {
            writer: writer.clone(),
        }),
        Err(error) => Err(StorageError::Remote {
            what: "write",
            key: "log".to_owned(),
            why: towline_sys::task::chain(error),
        }),
    }
}

pub(super) fn entry_name(number: u64) -> String {
    format!("log/{number:020}")
}

/// The number of an entry, by its name.
pub(super) fn entry_number(name: &str) -> Option<u64> {
    name.strip_prefix("log/")?.parse().ok()
}

/// Snapshots are listed from the newest to the oldest.
fn snapshot_name(entries: u64) -> String {
    format!("snapshots/{:020}", u64::MAX - entries)
}

/// The entries that a snapshot comes from, by its name.
pub(super) fn snapshot_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix("snapshots/")?.parse().ok()?;
    Some(u64::MAX - number)
}

impl Journal {
    /// Reads the log and, as the writer, takes it over. Waits for a writer that may have died. Blocks.
    pub(crate) fn open(
        options: &S3Options,
        handle: Handle,
        node: &str,
        address: &str,
    ) -> Result<Arc<Self>, OpenError> {
        let client = Client::new(options)?;
        let journal = Self {
            client,
            handle,
            place: options.place(),
            lease: Mutex::default(),
            instance: Uuid::new_v4().to_string(),
            beats_every: options.lease / 4,
            snapshot_every: options.snapshot_every,
            log_kept: options.log_kept,
            state: RwLock::new(State::new()),
            tail: Mutex::default(),
            queue: Mutex::default(),
            standing: RwLock::new(Standing::Reader),
            writer: Mutex::default(),
            answered: tokio::sync::Mutex::default(),
        };
        if options.role == Role::Writer {
            let lease = Lease {
                node: node.to_owned(),
                instance: journal.instance.clone(),
                address: address.to_owned(),
                is_held: true,
                life: u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX),
                beat: 0,
            };
            let taken = lease::take(&journal.client, &lease);
            let tag = journal.handle.block_on(taken)?;
            *lock(&journal.lease) = Some((lease, tag));
        }
        journal.load()?;
        if options.role == Role::Writer {
            *journal
                .standing
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Standing::Writer;
            let mut tail = lock(&journal.tail);
            journal.take_over(&mut tail)?;
            journal.snapshot(&mut tail);
        }
        Ok(Arc::new(journal))
    }

    /// Whether this process may still change something, as far as it knows.
    pub(crate) fn is_writer(&self) -> bool {
        *self.standing.read().unwrap_or_else(PoisonError::into_inner) == Standing::Writer
    }

    fn lose(&self) {
        let mut standing = self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Writer {
            *standing = Standing::Reader;
            tracing::error!(
                "another registry writes to {} now; this one only serves",
                self.place
            );
        }
        *lock(&self.writer) = None;
    }

    /// Where the writer is reached.
    pub(crate) async fn writer_address(&self) -> Option<String> {
        if let Some((at, address)) = &*lock(&self.writer)
            && at.elapsed() < ADDRESS
        {
            return address.clone();
        }
        let lease = lease::read(&self.client).await.ok().flatten();
        let address = lease.and_then(|(lease, _)| lease.is_held.then_some(lease.address));
        *lock(&self.writer) = Some((Instant::now(), address.clone()));
        address
    }

    /// Keeps the lease; never ends.
    pub(crate) async fn keep_lease(&self) {
        loop {
            tokio::time::sleep(self.beats_every).await;
            if self.is_writer()
                && let Err(error) = self.beat(true).await
            {
                let error = towline_sys::task::chain(&error);
                tracing::warn!(error, "keep the lease of {}", self.place);
            }
        }
    }

    /// Gives the lease up, so that the next writer need not wait.
    pub(crate) async fn give_up(&self) {
        if self.is_writer() {
            self.beat(false).await.ok();
        }
    }

    async fn beat(&self, is_held: bool) -> Result<(), StorageError> {
        let held = lock(&self.lease).clone();
        let Some((mut lease, tag)) = held else {
            return Ok(());
        };
        lease.beat += 1;
        lease.is_held = is_held;
        match lease::write(&self.client, &lease, If::Is(&tag)).await? {
            Some(tag) => *lock(&self.lease) = Some((lease, tag)),
            None => self.lose(),
        }
        Ok(())
    }

    async fn entry(&self, number: u64) -> Result<Option<Entry>, StorageError> {
        let name = entry_name(number);
        let Some((bytes, _)) = self.client.get(&name, ENTRY_LIMIT).await? else {
            return Ok(None);
        };
        let entry = serde_json::from_slice(&bytes);
        entry
            .map(Some)
            .map_err(|_| StorageError::Corrupt { path: name.into() })
    }

    /// The newest snapshot and all that came after it.
    fn load(&self) -> Result<(), StorageError> {
        let mut tail = lock(&self.tail);
        self.reload(&mut tail)?;
        self.catch_up(&mut tail)
    }

    fn reload(&self, tail: &mut Tail) -> Result<(), StorageError> {
        let began = Instant::now();
        let (state, snapshot) = self.handle.block_on(self.whole())?;
        // Where a writer begins again and again, what came since the last snapshot adds up all the same.
        tail.snapshot = snapshot;
        tail.looked = Some(began);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Everything, and how many entries of it the newest snapshot holds.
    async fn whole(&self) -> Result<(State, u64), StorageError> {
        let mut state = self.newest().await?;
        let snapshot = state.entries;
        let after = state.entries.checked_sub(1).map(entry_name);
        let all = self
            .client
            .list("log/", after.as_deref(), usize::MAX)
            .await?;
        let numbers = state.entries..state.entries + all.len() as u64;
        let entries = stream::iter(numbers).map(|number| self.entry(number));
        let entries: Vec<_> = entries.buffered(FETCHED).try_collect().await?;
        for entry in entries.into_iter().map_while(|entry| entry) {
            state.apply(&entry);
        }
        Ok((state, snapshot))
    }

    /// What the newest snapshot says.
    async fn newest(&self) -> Result<State, StorageError> {
        for _ in 0..LOADS {
            let newest = self.client.list("snapshots/", None, 1).await?;
            let Some(newest) = newest.into_iter().next() else {
                return Ok(State::new());
            };
            // Between the list and the reading a newer one may have taken its place.
            if let Some((bytes, _)) = self.client.get(&newest.key, SNAPSHOT_LIMIT).await? {
                let damaged = || StorageError::Corrupt {
                    path: newest.key.clone().into(),
                };
                return State::read(&bytes).ok_or_else(damaged);
            }
        }
        Err(StorageError::Remote {
            what: "read",
            key: "snapshots/".to_owned(),
            why: "each was gone when it was read".to_owned(),
        })
    }

    /// Reads on to the end.
    fn catch_up(&self, tail: &mut Tail) -> Result<(), StorageError> {
        let began = Instant::now();
        loop {
            let next = self.read(|state| state.entries);
            if let Some(entry) = self.handle.block_on(self.entry(next))? {
                self.apply(&entry);
            } else if !self.is_behind(tail, next)? {
                tail.synced = Some(began);
                return Ok(());
            }
        }
    }

    /// Whether the next entry is not there because it was taken away: then a snapshot says what it said, and was read.
    fn is_behind(&self, tail: &mut Tail, next: u64) -> Result<bool, StorageError> {
        let often = BEHIND.min(self.log_kept / 2);
        if tail.looked.is_some_and(|looked| looked.elapsed() < often) {
            return Ok(false);
        }
        tail.looked = Some(Instant::now());
        let newest = self
            .handle
            .block_on(self.client.list("snapshots/", None, 1))?;
        let newest = newest.first().and_then(|one| snapshot_number(&one.key));
        if newest.is_none_or(|entries| entries <= next) {
            return Ok(false);
        }
        self.reload(tail)?;
        Ok(true)
    }

    fn apply(&self, entry: &Entry) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply(entry);
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Learns what the writer did: just now, or at most a moment ago. Blocks.
    fn sync(&self, just_now: bool) -> Result<(), StorageError> {
        if self.is_writer() {
            return Ok(());
        }
        let asked = Instant::now();
        let mut tail = lock(&self.tail);
        let is_fresh = |at: Instant| at > asked || (!just_now && at.elapsed() < FRESH);
        if tail.synced.is_some_and(is_fresh) {
            return Ok(());
        }
        self.catch_up(&mut tail)
    }

    /// What the log says now, or said a moment ago.
    pub(super) fn all<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StorageError> {
        self.sync(false)?;
        Ok(self.read(read))
    }

    /// Looks something up: what is not there is not there just now.
    pub(super) fn find<T>(
        &self,
        look: impl Fn(&State) -> Option<T>,
    ) -> Result<Option<T>, StorageError> {
        self.sync(false)?;
        let found = self.read(&look);
        if found.is_some() || self.is_writer() {
            return Ok(found);
        }
        self.sync(true)?;
        Ok(self.read(&look))
    }

    /// Makes changes visible, all of them or none. What others want to change meanwhile goes along. Blocks.
    pub(super) fn append(&self, ops: impl IntoIterator<Item = Op>) -> Result<(), StorageError> {
        let mine = {
            let mut queue = lock(&self.queue);
            queue.ops.extend(ops);
            queue.batch
        };
        let mut tail = lock(&self.tail);
        let ops = {
            let mut queue = lock(&self.queue);
            if queue.batch > mine {
                let lost = || Err(StorageError::NotWriter { writer: None });
                return queue.outcomes.get(&mine).map_or_else(lost, again);
            }
            queue.batch += 1;
            std::mem::take(&mut queue.ops)
        };
        let outcome = self.write(&mut tail, ops);
        let mut queue = lock(&self.queue);
        queue.outcomes.insert(mine, again(&outcome));
        while queue.outcomes.len() > OUTCOMES {
            queue.outcomes.pop_first();
        }
        outcome
    }

    fn write(&self, tail: &mut Tail, ops: Vec<Op>) -> Result<(), StorageError> {
        if !self.is_writer() {
            return Err(self.not_writer());
        }
        tail.nonce += 1;
        let entry = Entry {
            writer: self.instance.clone(),
            nonce: tail.nonce,
            ops,
        };
        loop {
            match self.add(&entry)? {
                None => break,
                // One of ours whose answer was lost, and which its asker was told had failed: it is there all the same.
                Some(other) if other.writer == self.instance => self.apply(&other),
                Some(other) => {
                    self.apply(&other);
                    self.lose();
                    return Err(self.not_writer());
                }
            }
        }
        let entries = self.read(|state| state.entries);
        if entries - tail.snapshot >= self.snapshot_every {
            self.snapshot(tail);
        }
        Ok(())
    }

    fn not_writer(&self) -> StorageError {
        let writer = self.handle.block_on(self.writer_address());
        StorageError::NotWriter { writer }
    }

    /// Puts an entry at the end; the one that is there instead, if there is one.
    fn add(&self, entry: &Entry) -> Result<Option<Entry>, StorageError> {
        let number = self.read(|state| state.entries);
        let bytes: Bytes = serde_json::to_vec(entry).unwrap_or_default().into();
        if bytes.len() > ENTRY_LIMIT {
            return Err(StorageError::Remote {
                what: "write",
                key: entry_name(number),
                why: "the change is too large".to_owned(),
            });
        }
        let name = entry_name(number);
        let put = self.client.put(&name, bytes, If::Absent);
        if let Put::Refused = self.handle.block_on(put)? {
            let there = self.handle.block_on(self.entry(number))?;
            let is_ours =
                |other: &Entry| other.writer == entry.writer && other.nonce == entry.nonce;
            let Some(there) = there else {
                // It was written and taken away again between the two questions: nothing is known of what it was.
                return Err(StorageError::Remote {
                    what: "write",
                    key: name,
                    why: "another writer took its place, and that entry is gone".to_owned(),
                });
            };
            if !is_ours(&there) {
                return Ok(Some(there));
            }
        }
        self.apply(entry);
        Ok(None)
    }

    /// Puts the entry from which on this process is the writer.
    fn take_over(&self, tail: &mut Tail) -> Result<(), StorageError> {
        tail.nonce += 1;
        let entry = Entry {
            writer: self.instance.clone(),
            nonce: tail.nonce,
            ops: Vec::new(),
        };
        // A writer that is not yet fenced may be faster some times.
        while let Some(other) = self.add(&entry)? {
            self.apply(&other);
        }
        Ok(())
    }

    /// Whether this process is the writer at this moment: an entry that changes nothing says so.
    pub(super) fn confirm(&self) -> Result<(), StorageError> {
        self.append([])
    }

    /// Writes down everything. Without it the next start only takes longer.
    fn snapshot(&self, tail: &mut Tail) {
        let (entries, bytes) = self.read(|state| (state.entries, serde_json::to_vec(state)));
        if entries - tail.snapshot < self.snapshot_every {
            return;
        }
        let written = self.handle.block_on(async {
            let name = snapshot_name(entries);
            let bytes = bytes.unwrap_or_default().into();
            self.client.put(&name, bytes, If::Absent).await?;
            Ok::<_, StorageError>(())
        });
        match written {
            Ok(()) => tail.snapshot = entries,
            Err(error) => {
                let error = towline_sys::task::chain(&error);
                tracing::warn!(error, "write a snapshot");
            }
        }
    }
}

/// Why object storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Options(#[from] S3Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
}
