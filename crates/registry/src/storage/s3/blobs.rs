//! Blobs as objects.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use towline_oci::{Digest, Verifier};
use towline_sys::fs::{self, FsError};
use uuid::Uuid;

use super::client::If;
use super::journal::Journal;
use super::remote::Remote;
use super::state::{Kept, Op, moment, seconds};
use crate::storage::{BlobStore, Content, StorageError};

/// The largest blob that is kept in memory, in bytes: manifests and configs.
const SMALL: u64 = 256 << 10;
/// Bytes of blobs that are kept in memory.
const MEMORY: usize = 8 << 20;

/// Blobs in a bucket.
#[derive(Debug)]
pub(crate) struct S3Blobs {
    journal: Arc<Journal>,
    /// Objects that are written, or being written, and not yet in the log.
    ready: Mutex<HashMap<String, Ready>>,
    small: Mutex<Small>,
}

/// An object of which the log says nothing yet.
#[derive(Clone, Debug)]
struct Ready {
    digest: Digest,
    is_whole: bool,
}

/// The last small blobs: what a digest names never changes.
#[derive(Debug, Default)]
struct Small {
    kept: HashMap<String, Bytes>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Small {
    fn keep(&mut self, key: String, bytes: Bytes) {
        self.bytes += bytes.len();
        if let Some(before) = self.kept.insert(key.clone(), bytes) {
            self.bytes -= before.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

fn verified(digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
    let mut verifier = Verifier::new(digest.algorithm());
    verifier.update(bytes);
    let actual = verifier.finish();
    if actual == *digest {
        return Ok(());
    }
    Err(StorageError::DigestMismatch {
        expected: digest.clone(),
        actual,
    })
}

impl S3Blobs {
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal,
            ready: Mutex::default(),
            small: Mutex::default(),
        }
    }

    fn kept(&self, digest: &Digest) -> Result<Option<Kept>, StorageError> {
        self.journal.find(|state| state.blobs.get(digest).cloned())
    }

    /// A name that was never used and never will be again.
    fn reserve(&self, digest: &Digest) -> String {
        let hex = digest.hex();
        let name = digest.algorithm().name();
        let key = format!("blobs/{name}/{}/{hex}/{}", &hex[..2], Uuid::new_v4());
        let ready = Ready {
            digest: digest.clone(),
            is_whole: false,
        };
        self.ready().insert(key.clone(), ready);
        key
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upload(&self, staged: &Path, digest: &Digest) -> Result<String, StorageError> {
        let found = std::fs::metadata(staged);
        let length = found
            .map_err(|error| FsError::new("look at", staged, error))?
            .len();
        let key = self.reserve(digest);
        let put = self.journal.client.put_file(&key, staged, length);
        if let Err(error) = self.journal.handle.block_on(put) {
            self.ready().remove(&key);
            return Err(error);
        }
        if let Some(ready) = self.ready().get_mut(&key) {
            ready.is_whole = true;
        }
        Ok(key)
    }

    /// An object with this content that was prepared.
    fn prepared(&self, digest: &Digest) -> Option<String> {
        let ready = self.ready();
        let mut whole = ready.iter().filter(|(_, ready)| ready.is_whole);
        let found = whole.find(|(_, ready)| ready.digest == *digest);
        found.map(|(key, _)| key.clone())
    }

    /// Lets the log say where a blob is.
    fn publish(&self, digest: &Digest, key: &str, size: u64) -> Result<(), StorageError> {
        let published = self.journal.append([Op::Blob {
            digest: digest.clone(),
            key: key.to_owned(),
            size,
            at: seconds(SystemTime::now()),
        }]);
        self.ready().remove(key);
        published
    }

    fn small(&self, kept: &Kept) -> Result<Option<Bytes>, StorageError> {
        let memory = || self.small.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = memory().kept.get(&kept.key) {
            return Ok(Some(bytes.clone()));
        }
        let limit = usize::try_from(SMALL).unwrap_or(usize::MAX);
        let got = self.journal.client.get(&kept.key, limit);
        let got = self.journal.handle.block_on(got)?;
        let bytes = got.map(|(bytes, _)| bytes);
        if let Some(bytes) = &bytes {
            memory().keep(kept.key.clone(), bytes.clone());
        }
        Ok(bytes)
    }
}

impl BlobStore for S3Blobs {
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        Ok(self.kept(digest)?.map(|kept| kept.size))
    }

    fn open(&self, digest: &Digest) -> Result<Option<(Content, u64)>, StorageError> {
        let Some(kept) = self.kept(digest)? else {
            return Ok(None);
        };
        if kept.size <= SMALL {
            let bytes = self.small(&kept)?;
            return Ok(bytes.map(|bytes| (Content::memory(bytes), kept.size)));
        }
        let (client, handle) = (self.journal.client.clone(), self.journal.handle.clone());
        let remote = Remote::new(client, kept.key, kept.size, handle);
        Ok(Some((Content::Remote(Box::new(remote)), kept.size)))
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError> {
        verified(digest, bytes)?;
        if self.kept(digest)?.is_some() {
            return Ok(());
        }
        let key = self.reserve(digest);
        let put = self
            .journal
            .client
            .put(&key, bytes.to_vec().into(), If::Always);
        if let Err(error) = self.journal.handle.block_on(put) {
            self.ready().remove(&key);
            return Err(error);
        }
        self.publish(digest, &key, bytes.len() as u64)
    }

    fn each(&self, tell: &mut dyn FnMut(Digest, u64, SystemTime)) -> Result<(), StorageError> {
        let all = self.journal.all(|state| {
            let blobs = state.blobs.iter();
            blobs
                .map(|(digest, kept)| (digest.clone(), kept.size, kept.at))
                .collect::<Vec<_>>()
        })?;
        for (digest, size, at) in all {
            tell(digest, size, moment(at));
        }
        Ok(())
    }

    fn remove(&self, digest: &Digest) -> Result<bool, StorageError> {
        let Some(kept) = self.kept(digest)? else {
            return Ok(false);
        };
        let digest = digest.clone();
        self.journal.append([Op::Forget { digest }])?;
        // From here on nothing can name the object. What cannot be deleted now goes with the next sweep.
        let deleted = self
            .journal
            .handle
            .block_on(self.journal.client.delete(&kept.key));
        if let Err(error) = deleted {
            let error = towline_sys::task::chain(&error);
            tracing::warn!(error, "delete a blob that is gone");
        }
        Ok(true)
    }

    fn prepare(&self, staged: &Path, digest: &Digest) -> Result<(), StorageError> {
        if self.kept(digest)?.is_none() {
            self.upload(staged, digest)?;
        }
        Ok(())
    }

    fn adopt(&self, staged: &Path, digest: &Digest) -> Result<(), StorageError> {
        let prepared = self.prepared(digest);
        if self.kept(digest)?.is_some() {
            // Somebody else was faster: what was prepared is swept.
            if let Some(key) = prepared {
                self.ready().remove(&key);
            }
        } else {
            let key = match prepared {
                Some(key) => key,
                None => self.upload(staged, digest)?,
            };
            let found = std::fs::metadata(staged);
            let size = found
                .map_err(|error| FsError::new("look at", staged, error))?
                .len();
            self.publish(digest, &key, size)?;
        }
        fs::remove_file(staged)?;
        Ok(())
    }

    /// Objects that no entry of the log names: of pushes that were cut, and of writers that were fenced.
    fn sweep(&self, age: Duration) -> Result<(), StorageError> {
        let (journal, now) = (&self.journal, SystemTime::now());
        let all = journal
            .handle
            .block_on(journal.client.list("blobs/", None, usize::MAX))?;
        // What was listed before this moment was written by this writer, which knows what it needs, or by one before it, of
        // which nothing can come any more.
        journal.confirm()?;
        // In this order: what becomes ready or known from here on was not listed, or is known already.
        let ready: BTreeSet<String> = self.ready().keys().cloned().collect();
        let known: BTreeSet<String> =
            journal.read(|state| state.blobs.values().map(|kept| kept.key.clone()).collect());
        for object in all {
            let at = object.at.map(SystemTime::from);
            let is_old = at.is_some_and(|at| now.duration_since(at).is_ok_and(|since| since > age));
            if is_old && !known.contains(&object.key) && !ready.contains(&object.key) {
                journal
                    .handle
                    .block_on(journal.client.delete(&object.key))?;
            }
        }
        Ok(())
    }
}
