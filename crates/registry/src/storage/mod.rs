//! What the registry keeps, behind two traits: bytes by digest, and what repositories say of them.
//!
//! Everything here blocks; callers use the threads kept for that. What a method acknowledged survives
//! `kill -9` and a power cut.

mod at_once;
mod blobs;
mod content;
mod metadata;
mod recent;
pub(crate) mod s3;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use towline_oci::{Algorithm, Digest};
use towline_sys::fs::{self, FsError};

pub(crate) use blobs::FileBlobs;
pub use content::Content;
pub(crate) use metadata::FileMetadata;
pub(crate) use recent::{Held, Recent};

use crate::names::{Repository, Tag};

/// Why something cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file operation failed.
    #[error("use the registry's directory")]
    Fs(#[from] FsError),
    /// A file of ours does not hold what we write.
    #[error("{} is damaged", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Object storage failed.
    #[error("{what} {key} on the object storage: {why}")]
    Remote {
        /// What was attempted.
        what: &'static str,
        /// The object, or what the names of several begin with.
        key: String,
        /// The reason.
        why: String,
    },
    /// Another registry changes the storage that this one shares.
    #[error(
        "this registry only serves; {}",
        writer.as_ref().map_or_else(|| "there is no writer at the moment".to_owned(), |writer| format!("push to {writer}"))
    )]
    NotWriter {
        /// Where the writer is reached, if that is known.
        writer: Option<String>,
    },
    /// There is no room by the quota.
    #[error("{0}")]
    OverQuota(crate::quota::OverQuota),
    /// Content is not what its digest says.
    #[error("content has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// The digest that was stated.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
}

/// Bytes by digest, each kept once.
pub trait BlobStore: Send + Sync + std::fmt::Debug {
    /// The size in bytes, if the blob is there.
    fn size(&self, digest: &Digest) -> Result<Option<u64>, StorageError>;
    /// The blob for reading, with its size.
    fn open(&self, digest: &Digest) -> Result<Option<(Content, u64)>, StorageError>;
    /// The same, where neither the disk nor the network need be waited for; none does not mean that it is not there.
    fn open_at_once(&self, _digest: &Digest) -> Option<(Content, u64)> {
        None
    }
    /// Keeps bytes, which must have this digest.
    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StorageError>;
    /// Every blob with its size and when it came, in no order.
    fn each(&self, tell: &mut dyn FnMut(Digest, u64, SystemTime)) -> Result<(), StorageError>;
    /// Takes a blob away; false if it was not there.
    fn remove(&self, digest: &Digest) -> Result<bool, StorageError>;
    /// Does beforehand what takes long when `adopt` takes this file over.
    fn prepare(&self, _staged: &Path, _digest: &Digest) -> Result<(), StorageError> {
        Ok(())
    }
    /// Takes away what a crash left and nothing can name, if it is older than this.
    fn sweep(&self, _age: Duration) -> Result<(), StorageError> {
        Ok(())
    }
    /// Takes over a file that was verified and synced; the file is gone afterwards.
    fn adopt(&self, staged: &Path, digest: &Digest) -> Result<(), StorageError>;
}

/// What is written down of a manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestRecord {
    /// The media type under which it was pushed.
    pub media_type: String,
    /// What it refers to, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

/// What repositories hold: links to blobs, manifests, tags, referrers.
pub trait MetadataStore: Send + Sync + std::fmt::Debug {
    /// What was read lately, where nobody else changes what is stored.
    fn recent(&self) -> Option<&Recent> {
        None
    }
    /// Whether anything was ever pushed under this name.
    fn exists(&self, repository: &Repository) -> Result<bool, StorageError>;
    /// Every repository, sorted.
    fn repositories(&self) -> Result<Vec<Repository>, StorageError>;
    /// Whether the repository holds the blob.
    fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError>;
    /// Whether it is known without waiting that the repository holds the blob.
    fn has_blob_at_once(&self, _repository: &Repository, _digest: &Digest) -> bool {
        false
    }
    /// When the repository's link to a blob was made, or last touched.
    fn blob_link(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<SystemTime>, StorageError>;
    /// The blobs that the repository holds, and when their links were made, or last touched.
    fn blob_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError>;
    /// Makes the link to a blob young, if it is old.
    fn touch_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError>;
    /// The manifests of the repository.
    fn manifests(&self, repository: &Repository) -> Result<Vec<Digest>, StorageError>;
    /// The manifests of the repository, and when each was written or last used; now, where that is not kept.
    fn manifest_times(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError> {
        let found = self.manifests(repository)?.into_iter();
        Ok(found.map(|digest| (digest, SystemTime::now())).collect())
    }
    /// Keeps when a blob or manifest of the repository was last used, where that is kept.
    fn note_use(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _at: SystemTime,
    ) -> Result<(), StorageError> {
        Ok(())
    }
    /// What is written down of referrers: subject, referrer, and when.
    fn referrer_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, Digest, SystemTime)>, StorageError>;
    /// Whether it is written down that `referrer` refers to `subject`.
    fn is_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, StorageError>;
    /// Strikes out that `referrer` refers to `subject`.
    fn forget_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), StorageError>;
    /// Lets the repository hold the blob.
    fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError>;
    /// Takes the blob from the repository; false if it had none.
    fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError>;
    /// The manifest's record.
    fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StorageError>;
    /// Writes the manifest's record.
    fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), StorageError>;
    /// Takes the manifest, and the tags that name it, from the repository; false if it had none.
    fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StorageError>;
    /// The manifest that a tag names.
    fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, StorageError>;
    /// Lets a tag name a manifest.
    fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StorageError>;
    /// Takes a tag away; false if there was none.
    fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, StorageError>;
    /// The tags, sorted by their bytes.
    fn tags(&self, repository: &Repository) -> Result<Vec<String>, StorageError>;
    /// Writes down that a manifest, described by `descriptor`, refers to `subject`.
    fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        descriptor: &Value,
    ) -> Result<(), StorageError>;
    /// Tells what refers to `subject`, with its descriptor, sorted by digest and from the first after `after` on, until it is told that this
    /// is enough.
    fn each_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        after: Option<&Digest>,
        tell: &mut dyn FnMut(&Digest, Value) -> bool,
    ) -> Result<(), StorageError>;
    /// The descriptors of the first so many.
    fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        most: usize,
    ) -> Result<Vec<Value>, StorageError> {
        let mut found = Vec::new();
        self.each_referrer(repository, subject, None, &mut |_, descriptor| {
            found.push(descriptor);
            found.len() < most
        })?;
        Ok(found)
    }
}

/// Makes a directory below an existing one, and makes each new entry durable.
fn make_dirs(base: &Path, below: &Path) -> Result<PathBuf, FsError> {
    let mut path = base.to_owned();
    for component in below {
        let parent = path.clone();
        path.push(component);
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            fs::sync_dir(&parent)?;
        }
    }
    Ok(path)
}

/// Removes a file durably; false if it was not there.
fn remove(path: &Path) -> Result<bool, FsError> {
    if !path.is_file() {
        return Ok(false);
    }
    fs::remove_file(path)?;
    if let Some(parent) = path.parent() {
        fs::sync_dir(parent)?;
    }
    Ok(true)
}

/// The algorithms of digests.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];
/// Entries of one directory that the walks of the collector read.
const WALK_ENTRIES: usize = 10_000_000;

/// The names in a directory; none where there is no directory, and none of files that a crash left half written.
fn optional_names(folder: &Path) -> Result<Vec<String>, FsError> {
    let names = match fs::read_dir_names(folder, WALK_ENTRIES) {
        Ok(names) => names,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

/// The names in a directory with what the file system says of each.
fn stamped(folder: &Path) -> Result<Vec<(String, std::fs::Metadata)>, FsError> {
    let names = optional_names(folder)?.into_iter();
    // What goes meanwhile is not there.
    let found = names.filter_map(|name| Some((std::fs::metadata(folder.join(&name)).ok()?, name)));
    Ok(found.map(|(found, name)| (name, found)).collect())
}

/// When a file was last written or touched; now, where that is not known, since young things stay.
fn modified(found: &std::fs::Metadata) -> SystemTime {
    found.modified().unwrap_or_else(|_| SystemTime::now())
}
