//! What repositories hold, by the log.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use towline_oci::Digest;

use super::journal::Journal;
use super::state::{Holding, Op, State, moment, seconds};
use crate::names::{Repository, Tag};
use crate::storage::{ManifestRecord, MetadataStore, StorageError};

/// How old a link may be without being made young again; far less than the grace of a collection.
const TOUCH: Duration = Duration::from_secs(60);

/// Repositories in a bucket.
#[derive(Debug)]
pub(crate) struct S3Metadata {
    journal: Arc<Journal>,
}

fn holding<'a>(state: &'a State, repository: &Repository) -> Option<&'a Holding> {
    state.repositories.get(repository.as_str())
}

impl S3Metadata {
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        Self { journal }
    }

    /// Looks something up in a repository.
    fn find<T>(
        &self,
        repository: &Repository,
        look: impl Fn(&Holding) -> Option<T>,
    ) -> Result<Option<T>, StorageError> {
        self.journal
            .find(|state| holding(state, repository).and_then(&look))
    }

    /// What a repository holds of something; nothing where there is none.
    fn all<T: Default>(
        &self,
        repository: &Repository,
        read: impl Fn(&Holding) -> T,
    ) -> Result<T, StorageError> {
        self.journal
            .all(|state| holding(state, repository).map(&read).unwrap_or_default())
    }

    fn link(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError> {
        self.journal.append([Op::Link {
            repository: repository.to_string(),
            digest: digest.clone(),
            at: seconds(SystemTime::now()),
        }])
    }
}

impl MetadataStore for S3Metadata {
    fn exists(&self, repository: &Repository) -> Result<bool, StorageError> {
        let found = self.find(repository, |_| Some(()))?;
        Ok(found.is_some())
    }

    fn repositories(&self) -> Result<Vec<Repository>, StorageError> {
        let names: Vec<_> = self
            .journal
            .all(|state| state.repositories.keys().cloned().collect())?;
        Ok(names
            .iter()
            .filter_map(|name| Repository::parse(name).ok())
            .collect())
    }

    fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        Ok(self.blob_link(repository, digest)?.is_some())
    }

    fn blob_link(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<SystemTime>, StorageError> {
        let at = self.find(repository, |held| held.blobs.get(digest).copied())?;
        Ok(at.map(moment))
    }

    fn blob_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, SystemTime)>, StorageError> {
        self.all(repository, |held| {
            let links = held.blobs.iter();
            links
                .map(|(digest, at)| (digest.clone(), moment(*at)))
                .collect()
        })
    }

    fn touch_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError> {
        // A reader cannot, and whoever pushes asks the writer.
        if !self.journal.is_writer() {
            return Ok(());
        }
        let young = |at: SystemTime| {
            let age = SystemTime::now().duration_since(at);
            age.is_ok_and(|age| age < TOUCH)
        };
        match self.blob_link(repository, digest)? {
            Some(at) if !young(at) => self.link(repository, digest),
            _ => Ok(()),
        }
    }

    fn manifests(&self, repository: &Repository) -> Result<Vec<Digest>, StorageError> {
        self.all(repository, |held| held.manifests.keys().cloned().collect())
    }

    fn referrer_links(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Digest, Digest, SystemTime)>, StorageError> {
        self.all(repository, |held| {
            let each = held.referrers.iter();
            each.flat_map(|(subject, of)| {
                of.iter().map(move |(referrer, (_, at))| {
                    (subject.clone(), referrer.clone(), moment(*at))
                })
            })
            .collect()
        })
    }

    fn is_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, StorageError> {
        let found = self.find(repository, |held| {
            held.referrers.get(subject)?.get(referrer).map(drop)
        })?;
        Ok(found.is_some())
    }

    fn forget_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), StorageError> {
        self.journal.append([Op::ForgetReferrer {
            repository: repository.to_string(),
            subject: subject.clone(),
            referrer: referrer.clone(),
        }])
    }

    fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StorageError> {
        if self.has_blob(repository, digest)? {
            return self.touch_blob(repository, digest);
        }
        self.link(repository, digest)
    }

    fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        if !self.has_blob(repository, digest)? {
            return Ok(false);
        }
        self.journal.append([Op::Unlink {
            repository: repository.to_string(),
            digest: digest.clone(),
        }])?;
        Ok(true)
    }

    fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StorageError> {
        self.find(repository, |held| held.manifests.get(digest).cloned())
    }

    fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), StorageError> {
        if self.manifest(repository, digest)?.as_ref() == Some(record) {
            return Ok(());
        }
        self.journal.append([Op::Manifest {
            repository: repository.to_string(),
            digest: digest.clone(),
            record: record.clone(),
        }])
    }

    fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        if self.manifest(repository, digest)?.is_none() {
            return Ok(false);
        }
        self.journal.append([Op::DeleteManifest {
            repository: repository.to_string(),
            digest: digest.clone(),
        }])?;
        Ok(true)
    }

    fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, StorageError> {
        self.find(repository, |held| held.tags.get(tag.as_str()).cloned())
    }

    fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        self.journal.append([Op::Tag {
            repository: repository.to_string(),
            tag: tag.to_string(),
            digest: digest.clone(),
        }])
    }

    fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, StorageError> {
        if self.tag(repository, tag)?.is_none() {
            return Ok(false);
        }
        self.journal.append([Op::DeleteTag {
            repository: repository.to_string(),
            tag: tag.to_string(),
        }])?;
        Ok(true)
    }

    fn tags(&self, repository: &Repository) -> Result<Vec<String>, StorageError> {
        self.all(repository, |held| held.tags.keys().cloned().collect())
    }

    fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
        descriptor: &Value,
    ) -> Result<(), StorageError> {
        self.journal.append([Op::Refer {
            repository: repository.to_string(),
            subject: subject.clone(),
            referrer: referrer.clone(),
            descriptor: descriptor.clone(),
            at: seconds(SystemTime::now()),
        }])
    }

    fn each_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        after: Option<&Digest>,
        tell: &mut dyn FnMut(&Digest, Value) -> bool,
    ) -> Result<(), StorageError> {
        self.journal.all(|state| {
            let Some(held) = holding(state, repository) else {
                return;
            };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let of = held.referrers.get(subject);
            let of = of.map(|of| of.range::<Digest, _>((from, Bound::Unbounded)));
            for (referrer, (descriptor, _)) in of.into_iter().flatten() {
                let is_here = held.manifests.contains_key(referrer);
                if is_here && !tell(referrer, descriptor.clone()) {
                    break;
                }
            }
        })
    }
}
