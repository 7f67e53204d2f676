//! Compressed bytes of downloads in flight, kept over a cut, a cancelled pull and a restart; or of a blob that was kept on purpose.
//!
//! A download that comes in order has one file. What comes before its turn, over further connections, has files of its own, each named by
//! its first byte and only ever appended to: so every file's length says what is here, also after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use towline_oci::Digest;
use towline_sys::fs::{self, At as _};

use crate::StoreError;
use crate::layout::{Layout, digest_of};
use crate::state::Inner;

/// The bytes of one download. They are not verified: whoever uses them hashes them all, those of an earlier attempt too.
///
/// One holder at a time. Dropped, the bytes stay for the next attempt.
#[derive(Debug)]
pub struct Spool {
    store: Arc<Inner>,
    digest: Digest,
    size: u64,
    /// By their first byte; none overlaps the next.
    parts: BTreeMap<u64, Part>,
    /// The file that was read last, by its first byte.
    reading: Option<(u64, File)>,
    /// The bytes are those of a blob that is kept.
    of_blob: bool,
}

/// A file of the spool.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    len: u64,
    /// Open while it grows.
    file: Option<File>,
}

impl Spool {
    pub(crate) fn open(store: Arc<Inner>, digest: &Digest, size: u64) -> Result<Self, StoreError> {
        if !store.state().spooling.insert(digest.clone()) {
            return Err(StoreError::Busy(digest.clone()));
        }
        let path = store.layout.blob(digest);
        let of_blob = size > 0 && is_whole(&path, size);
        let parts = if of_blob {
            let (len, file) = (size, None);
            Ok(BTreeMap::from([(0, Part { path, len, file })]))
        } else {
            parts(&store.layout, digest, size)
        };
        let parts = parts.inspect_err(|_| {
            store.state().spooling.remove(digest);
        })?;
        Ok(Self {
            store,
            digest: digest.clone(),
            size,
            parts,
            reading: None,
            of_blob,
        })
    }

    /// Bytes that are here.
    pub fn len(&self) -> u64 {
        self.parts.values().map(|part| part.len).sum()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is not here, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (start, part) in &self.parts {
            if *start > at {
                missing.push(at..*start);
            }
            at = start + part.len;
        }
        if at < self.size {
            missing.push(at..self.size);
        }
        missing
    }

    /// Whether this byte is here.
    pub fn has(&self, at: u64) -> bool {
        let before = self.parts.range(..=at).next_back();
        before.is_some_and(|(start, part)| start + part.len > at)
    }

    /// Reads bytes that are here from `at` on; 0 where the one at `at` is not.
    pub fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let Some((start, part)) = self.parts.range(..=at).next_back() else {
            return Ok(0);
        };
        let left = (start + part.len).saturating_sub(at);
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let file = match self.reading.take() {
            Some((reading, file)) if reading == *start => file,
            _ => fs::open(&part.path)?,
        };
        let read = file
            .read_at(&mut buffer[..most], at - start)
            .at("read", &part.path)?;
        self.reading = Some((*start, file));
        Ok(read)
    }

    /// The download's bytes from `at` on are in one file up to where the next begins: the first byte of that file. `None` where the one at
    /// `at` is not here.
    pub fn file_at(&self, at: u64) -> Option<u64> {
        let (start, part) = self.parts.range(..=at).next_back()?;
        (start + part.len > at).then_some(*start)
    }

    /// Opens the file that begins with byte `start`, to read what is in it and what comes.
    pub fn open_file(&self, start: u64) -> Result<File, StoreError> {
        Ok(match self.parts.get(&start) {
            Some(part) => fs::open(&part.path)?,
            None => fs::open(part_path(&self.store.layout.spooled(&self.digest), start))?,
        })
    }

    /// Puts bytes to their place; fails when they are more than were declared, or are here already.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = at + bytes.len() as u64;
        let next = self.parts.range(at + 1..).next().map(|(start, _)| *start);
        let most = next.unwrap_or(self.size).min(self.size);
        let before = self.parts.range(..=at).next_back();
        let (start, here) = before.map_or((at, at), |(start, part)| (*start, start + part.len));
        if end > most || here > at {
            return Err(StoreError::Size {
                digest: self.digest.clone(),
                declared: most,
                actual: end.max(here),
            });
        }
        let start = if here == at { start } else { at };
        let path = self.store.layout.spooled(&self.digest);
        let part = self.parts.entry(start).or_insert_with(|| Part {
            path: part_path(&path, start),
            len: 0,
            file: None,
        });
        part.append(bytes)?;
        if end == most {
            part.file = None;
        }
        Ok(())
    }

    /// Forgets the bytes, which are wrong, and starts again. A blob with these bytes is none.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.reading = None;
        while let Some((_, part)) = self.parts.pop_last() {
            fs::remove_file(&part.path)?;
        }
        if std::mem::take(&mut self.of_blob) {
            // What an earlier download left beside the blob was not looked at, and what comes would be put behind it.
            for part in parts(&self.store.layout, &self.digest, self.size)?.into_values() {
                fs::remove_file(&part.path)?;
            }
        }
        Ok(())
    }

    /// Removes the bytes: they are in the store in another form. Those of a blob that is kept stay.
    pub fn discard(mut self) -> Result<(), StoreError> {
        if self.of_blob {
            return Ok(());
        }
        self.restart()
    }

    /// Makes the bytes a blob of the store, durably. They are all here, and whoever calls has hashed them.
    pub fn keep(mut self) -> Result<(), StoreError> {
        if self.of_blob {
            return Ok(());
        }
        self.reading = None;
        let whole = self.store.layout.spooled(&self.digest);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&whole)
            .at("open", &whole)?;
        let mut end = file.seek(SeekFrom::End(0)).at("seek", &whole)?;
        // In order, so that a cut leaves a spool: what is there twice then is taken once.
        while let Some((start, part)) = self.parts.pop_first() {
            if start == 0 {
                continue;
            }
            end += std::io::copy(&mut fs::open(&part.path)?, &mut file).at("write", &whole)?;
            fs::remove_file(&part.path)?;
        }
        if end != self.size {
            return Err(StoreError::Size {
                digest: self.digest.clone(),
                declared: self.size,
                actual: end,
            });
        }
        self.store.name_blob(&file, &whole, &self.digest)
    }
}

impl Part {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&self.path)
                    .at("open", &self.path)?,
            ),
        };
        if let Err(error) = file.write_all(bytes).at("write", &self.path) {
            // A part may have been written: what counts is what was there before.
            file.set_len(self.len).ok();
            return Err(error.into());
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        for part in self.parts.values().filter(|part| part.len == 0) {
            fs::remove_file(&part.path).ok();
        }
        self.store.state().spooling.remove(&self.digest);
    }
}

/// Whether there is a file of so many bytes.
fn is_whole(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// The file whose first byte is the download's byte `start`.
fn part_path(path: &Path, start: u64) -> PathBuf {
    if start == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{start}"));
    name.into()
}

/// Reads a file's name: the download, and the file's first byte.
fn part_of(name: &str) -> Option<(Digest, u64)> {
    let (algorithm, rest) = name.split_once('-')?;
    let (hex, start) = match rest.split_once('.') {
        Some((hex, start)) => (hex, start.parse().ok()?),
        None => (rest, 0),
    };
    Some((digest_of(algorithm, hex)?, start))
}

/// Finds the files of a download. What cannot belong to one of this size, or is there twice, is removed.
fn parts(layout: &Layout, digest: &Digest, size: u64) -> Result<BTreeMap<u64, Part>, StoreError> {
    let mut found = BTreeMap::new();
    let path = layout.spooled(digest);
    for name in crate::layout::names(&layout.spool())? {
        if let Some((of, start)) = part_of(&name)
            && of == *digest
        {
            let path = part_path(&path, start);
            let len = std::fs::metadata(&path).at("stat", &path)?.len();
            found.insert(start, (path, len));
        }
    }
    let mut parts = BTreeMap::new();
    let mut at = 0;
    for (start, (path, len)) in found {
        let end = start.checked_add(len).filter(|end| *end <= size);
        match end.filter(|_| start >= at) {
            Some(end) => {
                at = end;
                let file = None;
                parts.insert(start, Part { path, len, file });
            }
            None => fs::remove_file(&path)?,
        }
    }
    Ok(parts)
}

/// Bytes of a download that are here.
pub(crate) fn kept(store: &Inner, digest: &Digest) -> u64 {
    let entries = entries(store).unwrap_or_default();
    let files = entries.iter().filter(|(_, of)| of.as_ref() == Some(digest));
    files
        .filter_map(|(path, _)| std::fs::symlink_metadata(path).ok())
        .map(|meta| meta.len())
        .sum()
}

/// What a trim leaves of the spools that no pull uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Those that were written to since so long.
    pub(crate) age: Duration,
    /// Of these no more bytes than this: the oldest go first.
    pub(crate) bytes: u64,
    /// And all the rest, once so many bytes are freed.
    pub(crate) once_freed: u64,
}

impl Keep {
    pub(crate) const NOTHING: Self = Self {
        age: Duration::ZERO,
        bytes: 0,
        once_freed: u64::MAX,
    };

    /// By the store's rules.
    pub(crate) fn of(options: &crate::Options) -> Self {
        Self {
            age: options.spool_age,
            bytes: options.spool_bytes,
            once_freed: u64::MAX,
        }
    }
}

/// What a trim removed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Freed {
    pub(crate) downloads: u64,
    pub(crate) bytes: u64,
}

/// Removes spools, the oldest first. Those stay that a pull has open or will have.
pub(crate) fn trim(store: &Inner, now: Timestamp, keep: Keep) -> Result<Freed, StoreError> {
    let mut kept = Vec::new();
    let mut freed = 0;
    let mut downloads = BTreeSet::new();
    let oldest = SystemTime::from(now).checked_sub(keep.age);
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
        if freed >= keep.once_freed {
            break;
        }
        let old = oldest.is_some_and(|oldest| modified <= oldest);
        if !old && total <= keep.bytes {
            continue;
        }
        // Held while the file goes, so that no download begins to use it meanwhile.
        let state = store.state();
        if digest.as_ref().is_some_and(|digest| state.spools(digest)) {
            continue;
        }
        match fs::remove_file(&path) {
            // Whoever had it open is done with it.
            Err(error) if error.is_not_found() => continue,
            other => other?,
        }
        drop(state);
        total -= len;
        freed += len;
        downloads.insert(digest.map_or(path, |digest| store.layout.spooled(&digest)));
    }
    Ok(Freed {
        downloads: downloads.len() as u64,
        bytes: freed,
    })
}

/// Removes every spool of a store that nobody has open yet; gives the bytes.
pub(crate) fn clear(layout: &Layout) -> Result<u64, StoreError> {
    let mut freed = 0;
    for name in crate::layout::names(&layout.spool())? {
        let path = layout.spool().join(name);
        let len = std::fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
        fs::remove_file(&path)?;
        freed += len;
    }
    Ok(freed)
}

/// Downloads in the spool, and their bytes.
pub(crate) fn total(store: &Inner) -> Result<(u64, u64), StoreError> {
    let mut downloads = BTreeSet::new();
    let mut bytes = 0;
    for (path, digest) in entries(store)? {
        if let Ok(meta) = std::fs::symlink_metadata(&path) {
            bytes += meta.len();
            downloads.insert(digest.map_or(path, |digest| store.layout.spooled(&digest)));
        }
    }
    Ok((downloads.len() as u64, bytes))
}

fn entries(store: &Inner) -> Result<Vec<(PathBuf, Option<Digest>)>, StoreError> {
    let dir = store.layout.spool();
    Ok(crate::layout::names(&dir)?
        .into_iter()
        .map(|name| {
            let digest = part_of(&name).map(|(digest, _)| digest);
            (dir.join(name), digest)
        })
        .collect())
}
