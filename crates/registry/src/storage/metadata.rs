//! Repositories as small files, below `repositories/<name>/`:
//!
//! | file | holds |
//! | --- | --- |
//! | `_blobs/<algorithm>/<hex>` | nothing: the repository holds this blob |
//! | `_manifests/<algorithm>/<hex>` | the manifest's record |
//! | `_tags/<tag>` | a digest |
//! | `_referrers/<algorithm>/<hex of the subject>/<algorithm>-<hex>` | the referrer's descriptor |
//!
//! No component of a repository's name begins with an underscore, so these never meet one.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use towline_oci::Digest;
use towline_sys::fs;

use super::{
    ALGORITHMS, ManifestRecord, MetadataStore, Recent, StorageError, at_once, make_dirs, modified,
    remove, stamped,
};
use crate::names::{Repository, Tag};

/// The largest of these files, in bytes: a descriptor holds all annotations of a manifest.
const FILE_LIMIT: u64 = 8 << 20;
/// How old a link may be without being made young again; far less than the grace of a collection.
const TOUCH: Duration = Duration::from_secs(60);
/// Directories that are walked for a list of repositories.
const WALK_LIMIT: usize = 100_000;

/// Repositories in a directory.
#[derive(Debug)]
pub(crate) struct FileMetadata {
    root: PathBuf,
    /// Entries of one directory that are read.
    entries: usize,
    recent: Recent,
}

impl FileMetadata {
    /// Repositories below an existing directory.
    pub(crate) fn new(root: PathBuf, entries: usize) -> Self {
        Self {
            root,
            entries,
            recent: Recent::default(),
        }
    }

    fn place(&self, repository: &Repository, below: impl AsRef<Path>) -> PathBuf {
        self.root
            .join("repositories")
            .join(repository.as_str())
            .join(below)
    }

    fn write(
        &self,
        repository: &Repository,
        below: &Path,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let path = self.place(repository, below);
        if let Some(folder) = below.parent() {
            make_dirs(
                &self.root,
                &Path::new("repositories")
                    .join(repository.as_str())
                    .join(folder),
            )?;
        }
        fs::write_atomic(path, bytes)?;
        Ok(())
    }

    fn has_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        self.place(repository, by_digest("_manifests", digest))
            .is_file()
    }

    /// The digests that a directory holds, each as a file, and when it was touched.
    fn digests(
        &self,
        repository: &Repository,
        folder: &str,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError> {
        let mut all = Vec::new();
        for algorithm in ALGORITHMS {
            let files = stamped(&self.place(repository, Path::new(folder).join(algorithm.name())))?;
            all.extend(files.into_iter().filter_map(|(name, found)| {
                let digest = Digest::parse(&format!("{}:{name}", algorithm.name())).ok()?;
                Some((digest, modified(&found)))
            }));
        }
        Ok(all)
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, StorageError> {
        let names = match fs::read_dir_names(folder, self.entries) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        // A name that begins with a dot is a file that a crash left half written.
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect())
    }
}

/// Sets when a file was touched, if it is there.
fn touch(path: &Path, at: SystemTime) -> Result<(), StorageError> {
    let file = std::fs::File::options().write(true).open(path);
    match file.and_then(|file| file.set_modified(at)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(fs::FsError::new("touch", path, error).into())
        }
        _ => Ok(()),
    }
}

fn by_digest(folder: &str, digest: &Digest) -> PathBuf {
    Path::new(folder)
        .join(digest.algorithm().name())
        .join(digest.hex())
}

impl MetadataStore for FileMetadata {
    fn recent(&self) -> Option<&Recent> {
        Some(&self.recent)
    }

    fn exists(&self, repository: &Repository) -> Result<bool, StorageError> {
        Ok(["_manifests", "_blobs"]
            .iter()
            .any(|folder| self.place(repository, folder).is_dir()))
    }

    fn repositories(&self) -> Result<Vec<Repository>, StorageError> {
        let base = self.root.join("repositories");
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        let mut walked = 0;
        while let Some(name) = open.pop() {
            walked += 1;
            if walked > WALK_LIMIT {
                break;
            }
            let children = self.names(&base.join(&name))?;
            if children
                .iter()
                .any(|child| child == "_manifests" || child == "_blobs")
            {
                found.extend(Repository::parse(&name).ok());
            }
            let below = children.into_iter().filter(|child| !child.starts_with('_'));
            open.extend(below.map(|child| {
                if name.is_empty() {
                    child
                } else {
                    format!("{name}/{child}")
                }
            }));
        }
        found.sort();
        Ok(found)
    }

    fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        Ok(self
            .place(repository, by_digest("_blobs", digest))
            .is_file())
    }

    fn has_blob_at_once(&self, repository: &Repository, digest: &Digest) -> bool {
        at_once::is_there(&self.place(repository, by_digest("_blobs", digest)))
    }

    fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError> {
        if self.has_blob(repository, digest)? {
            return self.touch_blob(repository, digest);
        }
        self.write(repository, &by_digest("_blobs", digest), b"")
    }

    fn blob_link(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<SystemTime>, StorageError> {
        let path = self.place(repository, by_digest("_blobs", digest));
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Some(modified(&found))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fs::FsError::new("look at", path, error).into()),
        }
    }

    fn blob_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError> {
        self.digests(repository, "_blobs")
    }

    fn touch_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError> {
        let path = self.place(repository, by_digest("_blobs", digest));
        let now = SystemTime::now();
        let touched = self.blob_link(repository, digest)?;
        let young = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < TOUCH);
        if touched.is_none_or(young) {
            return Ok(());
        }
        touch(&path, now)
    }

    fn manifest_times(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError> {
        self.digests(repository, "_manifests")
    }

    fn note_use(
        &self,
        repository: &Repository,
        digest: &Digest,
        at: SystemTime,
    ) -> Result<(), StorageError> {
        for folder in ["_blobs", "_manifests"] {
            touch(&self.place(repository, by_digest(folder, digest)), at)?;
        }
        Ok(())
    }

    fn manifests(&self, repository: &Repository) -> Result<Vec<Digest>, StorageError> {
        let found = self.digests(repository, "_manifests")?.into_iter();
        Ok(found.map(|(digest, _)| digest).collect())
    }

    fn referrer_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, Digest, SystemTime)>, StorageError> {
        let mut all = Vec::new();
        for algorithm in ALGORITHMS {
            let top = self.place(repository, Path::new("_referrers").join(algorithm.name()));
            for hex in super::optional_names(&top)? {
                let Ok(subject) = Digest::parse(&format!("{}:{hex}", algorithm.name())) else {
                    continue;
                };
                all.extend(
                    stamped(&top.join(hex))?
                        .into_iter()
                        .filter_map(|(name, found)| {
                            Some((subject.clone(), referrer_named(&name)?, modified(&found)))
                        }),
                );
            }
        }
        Ok(all)
    }

    fn is_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, StorageError> {
        Ok(self
            .place(repository, referrer_path(subject, referrer))
            .is_file())
    }

    fn forget_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), StorageError> {
        remove(&self.place(repository, referrer_path(subject, referrer)))?;
        Ok(())
    }

    fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        Ok(remove(
            &self.place(repository, by_digest("_blobs", digest)),
        )?)
    }

    fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StorageError> {
        let path = self.place(repository, by_digest("_manifests", digest));
        let Some(bytes) = fs::read_optional(&path, FILE_LIMIT)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| StorageError::Corrupt { path })
    }

    fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), StorageError> {
        let _forgotten = self.recent.changing(repository);
        let bytes = serde_json::to_vec(record).expect("a record is JSON");
        self.write(repository, &by_digest("_manifests", digest), &bytes)
    }

    fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let _forgotten = self.recent.changing(repository);
        let Some(record) = self.manifest(repository, digest)? else {
            return Ok(false);
        };
        for name in self.tags(repository)? {
            let Ok(tag) = Tag::parse(&name) else { continue };
            if self.tag(repository, &tag)?.as_ref() == Some(digest) {
                self.delete_tag(repository, &tag)?;
            }
        }
        let removed = remove(&self.place(repository, by_digest("_manifests", digest)))?;
        // After it: an entry without its manifest is not listed, a manifest without its entry would not be found.
        if let Some(subject) = record.subject {
            remove(&self.place(repository, referrer_path(&subject, digest)))?;
        }
        Ok(removed)
    }

    fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, StorageError> {
        let path = self.place(repository, Path::new("_tags").join(tag.as_str()));
        let Some(bytes) = fs::read_optional(&path, FILE_LIMIT)? else {
            return Ok(None);
        };
        let digest = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| Digest::parse(text).ok());
        digest.map(Some).ok_or(StorageError::Corrupt { path })
    }

    fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        let _forgotten = self.recent.changing(repository);
        self.write(
            repository,
            &Path::new("_tags").join(tag.as_str()),
            digest.to_string().as_bytes(),
        )
    }

    fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, StorageError> {
        let _forgotten = self.recent.changing(repository);
        Ok(remove(
            &self.place(repository, Path::new("_tags").join(tag.as_str())),
        )?)
    }

    fn tags(&self, repository: &Repository) -> Result<Vec<String>, StorageError> {
        self.names(&self.place(repository, "_tags"))
    }

    fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        descriptor: &Value,
    ) -> Result<(), StorageError> {
        self.write(
            repository,
            &referrer_path(subject, referrer),
            descriptor.to_string().as_bytes(),
        )
    }

    fn each_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        after: Option<&Digest>,
        tell: &mut dyn FnMut(&Digest, Value) -> bool,
    ) -> Result<(), StorageError> {
        let folder = self.place(repository, by_digest("_referrers", subject));
        for name in self.names(&folder)? {
            let Some(referrer) = referrer_named(&name) else {
                continue;
            };
            let is_before = after.is_some_and(|after| referrer <= *after);
            if is_before || !self.has_manifest(repository, &referrer) {
                continue;
            }
            let path = folder.join(name);
            // One that was deleted meanwhile is no longer a referrer.
            let Some(bytes) = fs::read_optional(&path, FILE_LIMIT)? else {
                continue;
            };
            let descriptor = serde_json::from_slice(&bytes);
            let descriptor = descriptor.map_err(|_| StorageError::Corrupt { path })?;
            if !tell(&referrer, descriptor) {
                break;
            }
        }
        Ok(())
    }
}

fn referrer_path(subject: &Digest, referrer: &Digest) -> PathBuf {
    by_digest("_referrers", subject).join(format!(
        "{}-{}",
        referrer.algorithm().name(),
        referrer.hex()
    ))
}

/// The digest in the name of an entry in a list of referrers.
fn referrer_named(name: &str) -> Option<Digest> {
    Digest::parse(&name.replacen('-', ":", 1)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repository_holds_what_it_was_given_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileMetadata::new(folder.path().to_owned(), 100);
        let (a, b) = (
            Repository::parse("team/a").unwrap(),
            Repository::parse("team/a/b").unwrap(),
        );
        let digest = Digest::of(b"x");
        assert!(!store.exists(&a).unwrap());
        store.link_blob(&a, &digest).unwrap();
        assert!(store.has_blob(&a, &digest).unwrap());
        assert!(!store.has_blob(&b, &digest).unwrap());
        assert!(!store.exists(&b).unwrap());
        assert_eq!(store.repositories().unwrap(), std::slice::from_ref(&a));
        assert!(store.unlink_blob(&a, &digest).unwrap());
        assert!(!store.unlink_blob(&a, &digest).unwrap());
    }

    #[test]
    fn deleting_a_manifest_takes_its_tags_and_its_place_among_referrers() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileMetadata::new(folder.path().to_owned(), 100);
        let name = Repository::parse("a").unwrap();
        let (subject, digest) = (Digest::of(b"subject"), Digest::of(b"referrer"));
        let record = ManifestRecord {
            media_type: "m".to_owned(),
            subject: Some(subject.clone()),
        };
        store.put_manifest(&name, &digest, &record).unwrap();
        store
            .add_referrer(&name, &subject, &digest, &json!({"d": 1}))
            .unwrap();
        let tags = ["v2", "V1"].map(|tag| Tag::parse(tag).unwrap());
        store.set_tag(&name, &tags[0], &digest).unwrap();
        store.set_tag(&name, &tags[1], &subject).unwrap();
        std::fs::write(folder.path().join("repositories/a/_tags/.v3.0.tmp"), "half").unwrap();
        assert_eq!(store.tags(&name).unwrap(), ["V1", "v2"]);
        let referrers = || store.referrers(&name, &subject, 10).unwrap();
        assert_eq!(referrers(), [json!({"d": 1})]);
        assert!(store.delete_manifest(&name, &digest).unwrap());
        assert_eq!(store.tags(&name).unwrap(), ["V1"]);
        assert!(referrers().is_empty());
        assert_eq!(store.manifest(&name, &digest).unwrap(), None);
    }
}
