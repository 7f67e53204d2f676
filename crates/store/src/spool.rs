//! Compressed bytes of downloads in flight, kept over a cut, a cancelled pull and a restart.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use towline_oci::Digest;
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::layout::digest_of;
use crate::state::Inner;

/// The bytes of one download. They are not verified: whoever uses them hashes them all, those of an earlier attempt too.
///
/// One holder at a time. Dropped, the bytes stay for the next attempt.
#[derive(Debug)]
pub struct Spool {
    store: Arc<Inner>,
    digest: Digest,
    size: u64,
    len: u64,
    file: File,
    path: PathBuf,
}

impl Spool {
    pub(crate) fn open(store: Arc<Inner>, digest: &Digest, size: u64) -> Result<Self, StoreError> {
        if !store.state().spooling.insert(digest.clone()) {
            return Err(StoreError::Busy(digest.clone()));
        }
        let path = store.layout.spooled(digest);
        let opened = open_file(&path, size);
        let (file, len) = opened.inspect_err(|_| {
            store.state().spooling.remove(digest);
        })?;
        Ok(Self {
            store,
            digest: digest.clone(),
            size,
            len,
            file,
            path,
        })
    }

    /// Bytes that are here.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A reader of its own, at the first byte.
    pub fn reader(&self) -> Result<File, StoreError> {
        Ok(fs::open(&self.path)?)
    }

    /// Adds bytes; fails when they are more than were declared.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let len = self.len + bytes.len() as u64;
        if len > self.size {
            return Err(StoreError::Size {
                digest: self.digest.clone(),
                declared: self.size,
                actual: len,
            });
        }
        if let Err(error) = self.file.write_all(bytes).at("write", &self.path) {
            // A part may have been written: what counts is what was there before.
            self.file.set_len(self.len).ok();
            return Err(error.into());
        }
        self.len = len;
        Ok(())
    }

    /// Forgets the bytes and starts again.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).at("truncate", &self.path)?;
        self.len = 0;
        Ok(())
    }

    /// Removes the bytes: they are in the store in another form, or they are wrong.
    pub fn discard(self) -> Result<(), StoreError> {
        Ok(fs::remove_file(&self.path)?)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.len == 0 {
            fs::remove_file(&self.path).ok();
        }
        self.store.state().spooling.remove(&self.digest);
    }
}

fn open_file(path: &Path, size: u64) -> Result<(File, u64), StoreError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .at("open", path)?;
    let mut len = file.metadata().at("stat", path)?.len();
    if len > size {
        file.set_len(0).at("truncate", path)?;
        len = 0;
    }
    Ok((file, len))
}

/// Removes spools that are older than `age`, and of the rest the oldest until no more than `most` bytes are left. Those in use stay.
/// Gives the bytes that were freed.
pub(crate) fn trim(
    store: &Inner,
    now: Timestamp,
    age: Duration,
    most: u64,
) -> Result<u64, StoreError> {
    let mut kept = Vec::new();
    let mut freed = 0;
    let oldest = SystemTime::from(now).checked_sub(age);
    for (path, digest) in entries(store)? {
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        kept.push((modified, meta.len(), path, digest));
    }
    kept.sort_by_key(|(modified, ..)| *modified);
    let mut total: u64 = kept.iter().map(|(_, len, ..)| len).sum();
    for (modified, len, path, digest) in kept {
        let old = oldest.is_some_and(|oldest| modified < oldest);
        if !old && total <= most {
            continue;
        }
        // Held while the file goes, so that no download begins to use it meanwhile.
        let state = store.state();
        if digest.is_some_and(|digest| state.spooling.contains(&digest)) {
            continue;
        }
        fs::remove_file(&path)?;
        drop(state);
        total -= len;
        freed += len;
    }
    Ok(freed)
}

/// Files in the spool, and their bytes.
pub(crate) fn total(store: &Inner) -> Result<(u64, u64), StoreError> {
    let entries = entries(store)?;
    let files = entries
        .iter()
        .filter_map(|(path, _)| std::fs::symlink_metadata(path).ok());
    Ok(files.fold((0, 0), |(count, bytes), meta| {
        (count + 1, bytes + meta.len())
    }))
}

fn entries(store: &Inner) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
    let dir = store.layout.spool();
    Ok(crate::layout::names(&dir)?
        .into_iter()
        .map(|name| {
            let digest = name
                .split_once('-')
                .and_then(|(algorithm, hex)| digest_of(algorithm, hex));
            (dir.join(name), digest)
        })
        .collect())
}
