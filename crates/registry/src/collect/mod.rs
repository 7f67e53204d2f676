//! Garbage collection while the registry is in use.
//!
//! First the links go by which a repository holds a blob that no manifest of it names, then the blobs that no repository
//! holds. What is younger than the grace stays: a client pushes blobs first, and names them afterwards. To look whether a
//! blob is there makes its link young again, since a client that finds it does not push it.

mod gate;

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use towline_oci::{Digest, Document, MAX_DOCUMENT_BYTES};

use gate::short;
pub(crate) use gate::{Batches, Gate};

use crate::names::Repository;
use crate::storage::{BlobStore, MetadataStore, StorageError};

/// Things that are taken away while those who add wait.
const BATCH: usize = 32;

/// How to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collection {
    /// Only says what would go.
    pub dry_run: bool,
    /// What is younger stays.
    pub grace: Duration,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Collected {
    /// Whether nothing was really taken away.
    pub dry_run: bool,
    /// Repositories that were looked at.
    pub repositories: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Links to blobs that no manifest of the repository names.
    pub links: u64,
    /// Entries in lists of referrers whose manifest is gone.
    pub referrers: u64,
    /// Blobs that no repository holds.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories of which nothing was taken, because a manifest could not be read.
    pub left_alone: Vec<String>,
}

/// What a collector works on.
pub(crate) struct Collector<'a> {
    pub(crate) blobs: &'a dyn BlobStore,
    pub(crate) metadata: &'a dyn MetadataStore,
    pub(crate) gate: &'a Gate,
}

/// The digests that a manifest names.
pub(crate) fn named(document: &Document) -> Vec<&Digest> {
    match document {
        Document::Manifest(manifest) => std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .chain(&manifest.subject)
            .map(|descriptor| &descriptor.digest)
            .collect(),
        Document::Index(index) => index
            .manifests
            .iter()
            .chain(&index.subject)
            .map(|descriptor| &descriptor.digest)
            .collect(),
    }
}

/// Reads a stored manifest; none if its bytes are gone or are no manifest.
pub(crate) fn document(
    blobs: &dyn BlobStore,
    media_type: &str,
    digest: &Digest,
) -> Result<Option<Document>, StorageError> {
    use std::io::Read as _;
    let Some((content, _)) = blobs.open(digest)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let read = content
        .take(MAX_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| towline_sys::fs::FsError::new("read", digest.to_string(), error))?;
    Ok(Document::parse(media_type, &bytes).ok())
}

impl Collector<'_> {
    /// Collects. Blocks; everything else goes on meanwhile.
    pub(crate) fn run(&self, how: Collection, now: SystemTime) -> Result<Collected, StorageError> {
        self.gate.collecting(|| self.collect(how, now))
    }

    fn collect(&self, how: Collection, now: SystemTime) -> Result<Collected, StorageError> {
        let mut done = Collected {
            dry_run: how.dry_run,
            ..Collected::default()
        };
        let old = |touched: SystemTime| {
            now.duration_since(touched)
                .is_ok_and(|age| age >= how.grace)
        };
        let mut held = HashSet::new();
        for repository in self.metadata.repositories()? {
            done.repositories += 1;
            let unused = self.unused(&repository, &mut done, &mut held, &old)?;
            done.links += self.unlink(&repository, &unused, how, &old, &mut held)?;
            done.referrers += self.forget_referrers(&repository, how, &old)?;
        }
        let mut gone = Vec::new();
        self.blobs.each(&mut |digest, size, touched| {
            if !held.contains(&short(&digest)) && old(touched) {
                gone.push((digest, size));
            }
        })?;
        for batch in gone.chunks(BATCH) {
            self.gate.alone(|fresh| {
                for (digest, size) in batch {
                    if fresh(None, digest) || (!how.dry_run && !self.blobs.remove(digest)?) {
                        continue;
                    }
                    done.blobs += 1;
                    done.bytes += size;
                }
                Ok::<_, StorageError>(())
            })?;
        }
        if !how.dry_run {
            self.blobs.sweep(how.grace)?;
        }
        Ok(done)
    }

    /// The links of a repository that no manifest of it needs; everything that it holds besides them goes into `held`.
    fn unused(
        &self,
        repository: &Repository,
        done: &mut Collected,
        held: &mut HashSet<u128>,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<Vec<Digest>, StorageError> {
        // Links first: a manifest that comes later than the list of links is noted at the gate.
        let links = self.metadata.blob_links(repository)?;
        let mut needed = HashSet::new();
        let mut whole = true;
        for digest in self.metadata.manifests(repository)? {
            done.manifests += 1;
            held.insert(short(&digest));
            let Some(record) = self.metadata.manifest(repository, &digest)? else {
                continue;
            };
            match document(self.blobs, &record.media_type, &digest)? {
                Some(document) => needed.extend(named(&document).into_iter().map(short)),
                None => whole = false,
            }
        }
        if !whole {
            done.left_alone.push(repository.to_string());
        }
        let mut unused = Vec::new();
        for (digest, touched) in links {
            if whole && !needed.contains(&short(&digest)) && old(touched) {
                unused.push(digest);
            } else {
                held.insert(short(&digest));
            }
        }
        Ok(unused)
    }

    fn unlink(
        &self,
        repository: &Repository,
        unused: &[Digest],
        how: Collection,
        old: &dyn Fn(SystemTime) -> bool,
        held: &mut HashSet<u128>,
    ) -> Result<u64, StorageError> {
        let mut unlinked = 0;
        for batch in unused.chunks(BATCH) {
            self.gate.alone(|fresh| {
                for digest in batch {
                    // Somebody may have looked at it, which makes it young, or relied on it.
                    let young = self.metadata.blob_link(repository, digest)?;
                    let stays = fresh(Some(repository), digest) || young.is_some_and(|at| !old(at));
                    if stays {
                        held.insert(short(digest));
                    } else if how.dry_run || self.metadata.unlink_blob(repository, digest)? {
                        unlinked += 1;
                    }
                }
                Ok::<_, StorageError>(())
            })?;
        }
        Ok(unlinked)
    }

    /// Entries whose manifest was never written, since a crash came first, or went before them.
    fn forget_referrers(
        &self,
        repository: &Repository,
        how: Collection,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<u64, StorageError> {
        let mut forgotten = 0;
        for (subject, referrer, touched) in self.metadata.referrer_links(repository)? {
            self.gate.alone(|_| {
                let dangling = self.metadata.manifest(repository, &referrer)?.is_none();
                if dangling && old(touched) {
                    if !how.dry_run {
                        self.metadata
                            .forget_referrer(repository, &subject, &referrer)?;
                    }
                    forgotten += 1;
                }
                Ok::<_, StorageError>(())
            })?;
        }
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests;
