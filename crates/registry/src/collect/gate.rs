//! The gate between those who add something and the collector, which both work at the same time.
//!
//! Whoever adds goes through together with others and notes what it relies on; the collector takes things away while nobody
//! is inside, a few at a time, and leaves what was noted since it began to look.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use towline_oci::Digest;

use crate::names::Repository;

/// A digest, shortened: two that are taken for one are kept, never lost.
pub(super) fn short(digest: &Digest) -> u128 {
    let hex = digest.hex();
    u128::from_str_radix(&hex[..32], 16).unwrap_or_default()
}

/// What was added or relied on while the collector works: in a repository, or anywhere.
#[derive(Debug, Default)]
struct Fresh {
    links: HashSet<(Repository, u128)>,
    blobs: HashSet<u128>,
}

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: RwLock<()>,
    /// None while no collector works.
    fresh: Mutex<Option<Fresh>>,
    /// One collector at a time.
    collector: Mutex<()>,
}

/// Somebody who adds.
#[derive(Debug)]
pub(crate) struct Adding<'a> {
    gate: &'a Gate,
    _inside: RwLockReadGuard<'a, ()>,
}

impl Gate {
    /// Waits until the collector is not taking anything away, and keeps it from that.
    pub(crate) fn adding(&self) -> Adding<'_> {
        Adding {
            gate: self,
            _inside: self.inside.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Runs a collector that looks at everything and then takes away.
    pub(super) fn collecting<T>(&self, work: impl FnOnce() -> T) -> T {
        let _one = self
            .collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.set(Some(Fresh::default()));
        let done = work();
        self.set(None);
        done
    }

    /// As a collector, for work that looks at things and then takes some of them away in small batches.
    pub(crate) fn in_batches<T>(&self, work: impl FnOnce(&Batches<'_>) -> T) -> T {
        self.collecting(|| work(&Batches(self)))
    }

    fn set(&self, fresh: Option<Fresh>) {
        // Whoever is inside has noted what it relies on before the collector looks, or notes it from now on.
        let _alone = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Takes something away while nobody adds. `work` is told what was noted meanwhile.
    pub(super) fn alone<T>(
        &self,
        work: impl FnOnce(&dyn Fn(Option<&Repository>, &Digest) -> bool) -> T,
    ) -> T {
        let _alone = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        work(&|repository, digest| match (&*fresh, repository) {
            (None, _) => false,
            (Some(fresh), Some(name)) => fresh.links.contains(&(name.clone(), short(digest))),
            (Some(fresh), None) => fresh.blobs.contains(&short(digest)),
        })
    }
}

/// The right to take things away.
#[derive(Debug)]
pub(crate) struct Batches<'a>(&'a Gate);

impl Batches<'_> {
    /// Things of one batch: so many are taken away while those who add wait.
    pub(crate) const SIZE: usize = super::BATCH;

    /// Takes a batch away while nobody adds. `work` is told whether something was noted since the work began.
    pub(crate) fn alone<T>(
        &self,
        work: impl FnOnce(&dyn Fn(Option<&Repository>, &Digest) -> bool) -> T,
    ) -> T {
        self.0.alone(work)
    }
}

impl Adding<'_> {
    /// Says what is added, or relied on, in a repository.
    pub(crate) fn note<'d>(
        &self,
        repository: &Repository,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) {
        let mut fresh = self
            .gate
            .fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = &mut *fresh {
            for digest in digests {
                fresh.links.insert((repository.clone(), short(digest)));
                fresh.blobs.insert(short(digest));
            }
        }
    }
}
