//! Uploads: sessions on disk, so that one survives a restart of the registry.
//!
//! A session is a directory `uploads/<uuid>/` with the file `data`, and `repository`, which names the
//! one repository that may go on with it. Its hash is kept in memory as bytes come; where that is lost,
//! or another algorithm is asked for, the file is read again at the end.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use towline_cause::Cause;
use towline_oci::{Algorithm, Digest, Verifier};
use towline_sys::fs::{self, FsError};
use uuid::Uuid;

use crate::names::Repository;
use crate::refusal::{Refusal, bad, missing};
use crate::storage::StorageError;

/// The uploads of a registry.
#[derive(Debug)]
pub(crate) struct Uploads {
    root: PathBuf,
    most: AtomicUsize,
    blob_bytes: AtomicU64,
    open: Mutex<HashMap<Uuid, State>>,
}

#[derive(Debug)]
enum State {
    /// A request works on it.
    Busy,
    /// It waits; with the hash of its bytes, if that is known.
    Idle(Option<Verifier>),
}

/// Bytes of an upload that are sent to the disk at once.
const STRETCH: u64 = 8 << 20;

/// An upload that one request works on; others are refused meanwhile.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    uploads: &'a Uploads,
    id: Uuid,
    folder: PathBuf,
    file: File,
    length: u64,
    hash: Option<Verifier>,
    ended: bool,
}

impl Uploads {
    /// Takes over the uploads that are on disk.
    pub(crate) fn open(root: PathBuf, most: usize, blob_bytes: u64) -> Result<Self, FsError> {
        let mut open = HashMap::new();
        fs::create_dir_all(&root)?;
        for name in fs::read_dir_names(&root, 1_000_000)? {
            if let Some(id) = name.to_str().and_then(|name| Uuid::try_parse(name).ok()) {
                open.insert(id, State::Idle(None));
            }
        }
        Ok(Self {
            root,
            most: AtomicUsize::new(most),
            blob_bytes: AtomicU64::new(blob_bytes),
            open: Mutex::new(open),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, State>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on: so many at once, and so many bytes in one.
    pub(crate) fn bound(&self, most: usize, blob_bytes: u64) {
        self.most.store(most, Relaxed);
        self.blob_bytes.store(blob_bytes, Relaxed);
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Begins an upload to a repository.
    pub(crate) fn begin(&self, repository: &Repository) -> Result<Session<'_>, Refusal> {
        let id = Uuid::new_v4();
        {
            let mut open = self.lock();
            if open.len() >= self.most.load(Relaxed) {
                let refusal = Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TOOMANYREQUESTS",
                    "too many uploads are open",
                );
                let refusal = refusal.cause(Cause::RateLimited);
                return Err(refusal.header(http::header::RETRY_AFTER, "5"));
            }
            open.insert(id, State::Busy);
        }
        let folder = self.root.join(id.to_string());
        let made = (|| {
            fs::create_dir_all(&folder)?;
            fs::write_atomic(folder.join("repository"), repository.as_str().as_bytes())?;
            open_data(&folder, true)
        })();
        match made {
            Ok(file) => {
                let hash = Some(Verifier::new(Algorithm::Sha256));
                Ok(Session {
                    uploads: self,
                    id,
                    folder,
                    file,
                    length: 0,
                    hash,
                    ended: false,
                })
            }
            Err(error) => {
                self.forget(id, &folder);
                Err(StorageError::from(error).into())
            }
        }
    }

    /// Goes on with an upload.
    pub(crate) fn resume(&self, repository: &Repository, id: Uuid) -> Result<Session<'_>, Refusal> {
        let unknown = || missing("BLOB_UPLOAD_UNKNOWN", "there is no such upload");
        let folder = self.root.join(id.to_string());
        let hash = {
            let mut open = self.lock();
            let state = open.get_mut(&id).ok_or_else(unknown)?;
            match std::mem::replace(state, State::Busy) {
                State::Busy => {
                    return Err(Refusal::new(
                        StatusCode::CONFLICT,
                        "BLOB_UPLOAD_INVALID",
                        "another request works on this upload",
                    ));
                }
                State::Idle(hash) => hash,
            }
        };
        let opened = (|| {
            let owner = fs::read_to_string_bounded(folder.join("repository"), 4096)?;
            let file = open_data(&folder, false)?;
            let length = file
                .metadata()
                .map_err(|error| FsError::new("look at", folder.join("data"), error))?
                .len();
            Ok::<_, FsError>((owner, file, length))
        })();
        match opened {
            Ok((owner, file, length)) if owner == repository.as_str() => Ok(Session {
                uploads: self,
                id,
                folder,
                file,
                length,
                hash,
                ended: false,
            }),
            Ok(_) => {
                self.lock().insert(id, State::Idle(hash));
                Err(unknown())
            }
            Err(error) if error.is_not_found() => {
                self.forget(id, &folder);
                Err(unknown())
            }
            Err(error) => {
                self.lock().insert(id, State::Idle(None));
                Err(StorageError::from(error).into())
            }
        }
    }

    fn forget(&self, id: Uuid, folder: &Path) {
        // What cannot be removed now is removed by the next sweep.
        if fs::remove_dir_all(folder).is_ok() {
            self.lock().remove(&id);
        } else {
            self.lock().insert(id, State::Idle(None));
        }
    }

    /// Removes uploads that nobody touched for `age`; their number.
    pub(crate) fn sweep(&self, now: SystemTime, age: Duration) -> usize {
        let idle: Vec<Uuid> = {
            let open = self.lock();
            open.iter()
                .filter(|(_, state)| matches!(state, State::Idle(_)))
                .map(|(id, _)| *id)
                .collect()
        };
        let mut removed = 0;
        for id in idle {
            let folder = self.root.join(id.to_string());
            let touched = std::fs::metadata(folder.join("data")).and_then(|found| found.modified());
            let old = touched.map_or(true, |touched| {
                now.duration_since(touched).is_ok_and(|since| since > age)
            });
            if old && matches!(self.lock().insert(id, State::Busy), Some(State::Idle(_))) {
                self.forget(id, &folder);
                removed += 1;
            }
        }
        removed
    }
}

fn open_data(folder: &Path, new: bool) -> Result<File, FsError> {
    let path = folder.join("data");
    let file = OpenOptions::new().append(true).create_new(new).open(&path);
    file.map_err(|error| FsError::new("open", path, error))
}

impl Session<'_> {
    /// The upload's name.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// The bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let length = self.length.saturating_add(bytes.len() as u64);
        let most = self.uploads.blob_bytes.load(Relaxed);
        if length > most {
            let message = format!("a blob may have at most {most} bytes");
            return Err(
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
                    .cause(Cause::ImageTooLarge),
            );
        }
        if let Err(error) = self.file.write_all(bytes) {
            // How much was written is not known, so the hash is not either.
            self.hash = None;
            let error = FsError::new("write", self.folder.join("data"), error);
            return Err(StorageError::from(error).into());
        }
        self.write_behind(length);
        self.length = length;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    /// Begins to write to the disk what was appended, a stretch at a time, so that the sync at the end finds little left to do. That the
    /// kernel may forget its copy is what asks for that; what is not on the disk yet, which is all of the stretch, it keeps.
    fn write_behind(&self, length: u64) {
        let (from, to) = (self.length / STRETCH, length / STRETCH);
        if let Some(bytes) = std::num::NonZeroU64::new((to - from) * STRETCH) {
            let advice = rustix::fs::Advice::DontNeed;
            rustix::fs::fadvise(&self.file, from * STRETCH, Some(bytes), advice).ok();
        }
    }

    /// Verifies the digest and gives the file to `keep`. The upload is over, whatever the outcome.
    pub(crate) fn finish(
        mut self,
        digest: &Digest,
        keep: impl FnOnce(&Path) -> Result<(), StorageError>,
    ) -> Result<(), Refusal> {
        let path = self.folder.join("data");
        let actual = match self.hash.take() {
            Some(hash) if digest.algorithm() == Algorithm::Sha256 => hash.finish(),
            _ => hash_file(&path, digest.algorithm()).map_err(StorageError::from)?,
        };
        if actual != *digest {
            self.ended = true;
            self.uploads.forget(self.id, &self.folder);
            return Err(StorageError::DigestMismatch {
                expected: digest.clone(),
                actual,
            }
            .into());
        }
        self.file
            .sync_all()
            .map_err(|error| StorageError::from(FsError::new("sync", &path, error)))?;
        keep(&path)?;
        self.ended = true;
        self.uploads.forget(self.id, &self.folder);
        Ok(())
    }

    /// Gives the upload up.
    pub(crate) fn cancel(mut self) {
        self.ended = true;
        self.uploads.forget(self.id, &self.folder);
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let hash = self.hash.take();
            self.uploads.lock().insert(self.id, State::Idle(hash));
        }
    }
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Digest, FsError> {
    let mut file = fs::open(path)?;
    let mut verifier = Verifier::new(algorithm);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(verifier.finish()),
            Ok(length) => verifier.update(&buffer[..length]),
            Err(error) => return Err(FsError::new("read", path, error)),
        }
    }
}

/// Whether a chunk that begins at `first` goes where the upload ends.
pub(crate) fn in_order(session: &Session<'_>, first: u64) -> Result<(), Refusal> {
    if first == session.length() {
        return Ok(());
    }
    let message = format!(
        "the upload has {} bytes, the chunk begins at {first}",
        session.length()
    );
    Err(Refusal::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "BLOB_UPLOAD_INVALID",
        message,
    )
    .header(http::header::RANGE, &received(session.length())))
}

/// The `Range` header for so many bytes received.
pub(crate) fn received(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

/// The refusal of a chunk whose length is not the stated one.
pub(crate) fn wrong_size(stated: u64, actual: u64) -> Refusal {
    bad(
        "SIZE_INVALID",
        format!("the chunk has {actual} bytes, its header says {stated}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_survives_a_restart_and_is_one_repositorys_and_one_requests() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Uploads::open(folder.path().to_owned(), 2, 100).unwrap();
        let (a, b) = (
            Repository::parse("a").unwrap(),
            Repository::parse("b").unwrap(),
        );
        let uploads = open();
        let mut session = uploads.begin(&a).unwrap();
        let id = session.id();
        session.append(b"hello ").unwrap();
        assert_eq!(
            uploads.resume(&a, id).unwrap_err().status,
            StatusCode::CONFLICT
        );
        drop(session);
        let uploads = open();
        assert_eq!(
            uploads.resume(&b, id).unwrap_err().status,
            StatusCode::NOT_FOUND
        );
        let mut session = uploads.resume(&a, id).unwrap();
        assert_eq!(session.length(), 6);
        session.append(b"world").unwrap();
        assert!(session.append(&[0; 100]).is_err());
        let mut kept = Vec::new();
        session
            .finish(&Digest::of(b"hello world"), |path| {
                kept = std::fs::read(path).unwrap();
                Ok(())
            })
            .unwrap();
        assert_eq!(kept, b"hello world");
        assert_eq!(uploads.count(), 0);
        assert_eq!(
            uploads.resume(&a, id).unwrap_err().status,
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn a_wrong_digest_ends_the_upload_and_old_ones_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path().to_owned(), 2, 100).unwrap();
        let name = Repository::parse("a").unwrap();
        let mut session = uploads.begin(&name).unwrap();
        session.append(b"x").unwrap();
        let refusal = session
            .finish(&Digest::of(b"y"), |_| panic!("kept"))
            .unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code),
            (StatusCode::BAD_REQUEST, "DIGEST_INVALID")
        );
        assert_eq!(uploads.count(), 0);
        drop(uploads.begin(&name).unwrap());
        let busy = uploads.begin(&name).unwrap();
        assert_eq!(
            uploads.begin(&name).unwrap_err().status,
            StatusCode::TOO_MANY_REQUESTS
        );
        let later = SystemTime::now() + Duration::from_secs(100);
        assert_eq!(uploads.sweep(later, Duration::from_secs(200)), 0);
        assert_eq!(uploads.sweep(later, Duration::from_secs(50)), 1);
        assert_eq!(uploads.count(), 1);
        drop(busy);
    }
}
