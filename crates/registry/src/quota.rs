//! Quotas: how many bytes a repository may hold, and all of them together.
//!
//! Content counts once: in a repository however often it is pushed there, and in all however many repositories hold it. What is used is
//! counted from what is stored when it is first asked for, so that a restart changes nothing, and kept in memory until something
//! goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use towline_oci::Digest;

use crate::access::fits;
use crate::handlers::Registry;
use crate::names::Repository;
use crate::storage::StorageError;

/// How many bytes may be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// In all.
    pub total: Option<u64>,
    /// In each repository whose name fits a pattern (`*` stands for any characters); the first that fits decides.
    pub repositories: Vec<(String, u64)>,
}

impl Quota {
    fn of(&self, repository: &Repository) -> Option<u64> {
        let mut all = self.repositories.iter();
        let found = all.find(|(pattern, _)| fits(pattern, repository.as_str()))?;
        Some(found.1)
    }
}

/// Why there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// The repository whose quota it is; none if it is that of all.
    pub repository: Option<Repository>,
    /// Bytes that may be stored.
    pub limit: u64,
    /// Bytes that are.
    pub used: u64,
    /// Bytes that were to come.
    pub more: u64,
}

impl std::fmt::Display for OverQuota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.repository {
            Some(repository) => write!(f, "the quota of repository {repository}")?,
            None => f.write_str("the quota of this registry")?,
        }
        write!(
            f,
            " is {} bytes, of which {} are used: there is no room for {} more",
            self.limit, self.used, self.more
        )
    }
}

/// What is used, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    total: Option<u64>,
    repositories: HashMap<Repository, u64>,
}

/// Room that was taken, for what is stored while this is held; nobody else takes any meanwhile. Dropped before it is kept, it is as
/// if nothing was known.
#[derive(Debug)]
pub(crate) struct Charge<'a>(Option<(MutexGuard<'a, Used>, &'a Repository)>);

impl Charge<'_> {
    /// It is stored.
    pub(crate) fn kept(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some((used, repository)) = &mut self.0 {
            used.total = None;
            used.repositories.remove(*repository);
        }
    }
}

impl Quotas {
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of a repository went.
    pub(crate) fn forget(&self, repository: &Repository) {
        self.lock().repositories.remove(repository);
    }

    /// Anything may have gone.
    pub(crate) fn forget_all(&self) {
        *self.lock() = Used::default();
    }
}

impl Registry {
    /// Takes room for content, unless it is there already. To be held until it is stored. Blocks.
    pub(crate) fn charge<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<Charge<'a>, StorageError> {
        let settings = self.settings.get();
        let quota = &settings.quota;
        let limit = quota.of(repository);
        if limit.is_none() && quota.total.is_none() {
            return Ok(Charge(None));
        }
        let mut used = self.quotas.lock();
        if let Some(limit) = limit
            && !self.metadata.has_blob(repository, digest)?
            && self.metadata.manifest(repository, digest)?.is_none()
        {
            let now = self.used_by(&mut used, repository)?;
            fit(Some(repository), limit, now, size)?;
            used.repositories.insert(repository.clone(), now + size);
        }
        // From here on what was counted is dropped again if it does not come to be.
        let mut charge = Charge(Some((used, repository)));
        if let (Some(limit), Some((used, _))) = (quota.total, &mut charge.0)
            && self.blobs.size(digest)?.is_none()
        {
            let now = self.used_in_all(used)?;
            fit(None, limit, now, size)?;
            used.total = Some(now + size);
        }
        Ok(charge)
    }

    /// Fails if content of this size finds no room. Content that is there already needs none, which a client learns by asking for it first.
    pub(crate) fn room(&self, repository: &Repository, size: u64) -> Result<(), StorageError> {
        self.room_for(repository, size, size)
    }

    /// The same where what comes to the repository is not what comes in all.
    pub(crate) fn room_for(
        &self,
        repository: &Repository,
        in_repository: u64,
        in_all: u64,
    ) -> Result<(), StorageError> {
        let settings = self.settings.get();
        let quota = &settings.quota;
        let limit = quota.of(repository);
        if limit.is_none() && quota.total.is_none() {
            return Ok(());
        }
        let mut used = self.quotas.lock();
        if let Some(limit) = limit {
            fit(
                Some(repository),
                limit,
                self.used_by(&mut used, repository)?,
                in_repository,
            )?;
        }
        if let Some(limit) = quota.total {
            fit(None, limit, self.used_in_all(&mut used)?, in_all)?;
        }
        Ok(())
    }

    fn used_by(&self, used: &mut Used, repository: &Repository) -> Result<u64, StorageError> {
        if let Some(known) = used.repositories.get(repository) {
            return Ok(*known);
        }
        let links = self.metadata.blob_links(repository)?.into_iter();
        let mut all: HashSet<Digest> = links.map(|(digest, _)| digest).collect();
        all.extend(self.metadata.manifests(repository)?);
        let mut sum = 0;
        for digest in &all {
            sum += self.blobs.size(digest)?.unwrap_or_default();
        }
        used.repositories.insert(repository.clone(), sum);
        Ok(sum)
    }

    fn used_in_all(&self, used: &mut Used) -> Result<u64, StorageError> {
        if let Some(known) = used.total {
            return Ok(known);
        }
        let mut sum = 0;
        self.blobs.each(&mut |_, size, _| sum += size)?;
        used.total = Some(sum);
        Ok(sum)
    }
}

fn fit(
    repository: Option<&Repository>,
    limit: u64,
    used: u64,
    more: u64,
) -> Result<(), StorageError> {
    if used.saturating_add(more) <= limit {
        return Ok(());
    }
    Err(StorageError::OverQuota(OverQuota {
        repository: repository.cloned(),
        limit,
        used,
        more,
    }))
}
