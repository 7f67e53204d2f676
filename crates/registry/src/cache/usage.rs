//! What of the cache is used: when each thing was asked for last, what is being served, how much there is.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use towline_oci::Digest;

use crate::names::Repository;

/// Things whose last use is remembered until it is written down; those that come later count as not used until then.
const TIMES: usize = 100_000;

type Times = HashMap<(Repository, Digest), SystemTime>;

/// What of the cache is used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    times: Mutex<Times>,
    serving: Arc<Mutex<HashMap<Digest, usize>>>,
    bytes: Mutex<Held>,
    /// What comes into each repository.
    into: Mutex<HashMap<Repository, u64>>,
    making: Mutex<()>,
    pub(super) evicted: AtomicU64,
    pub(super) evicted_bytes: AtomicU64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// Bytes that are kept, once they were counted; content that two repositories have may count twice until it is counted anew.
    pub(super) kept: Option<u64>,
    /// Bytes that come at the moment.
    pub(super) coming: u64,
    /// Those of them that are on the disk already.
    pub(super) arrived: u64,
}

/// Something that is being served until this is dropped.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Mutex<HashMap<Digest, usize>>>, Digest);

/// Room that is kept for something that comes, until this is dropped.
#[derive(Debug)]
pub(super) struct Coming {
    usage: Arc<Usage>,
    name: Repository,
    /// What the repository will hold more.
    bytes: u64,
    /// What of it is not here yet.
    new: u64,
    arrived: AtomicU64,
}

impl Coming {
    /// So many bytes more are on the disk.
    pub(super) fn arrived(&self, bytes: u64) {
        self.arrived.fetch_add(bytes, Relaxed);
        let mut held = lock(&self.usage.bytes);
        held.arrived = held.arrived.saturating_add(bytes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut all = lock(&self.0);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut held = lock(&self.usage.bytes);
        held.coming = held.coming.saturating_sub(self.new);
        held.arrived = held.arrived.saturating_sub(self.arrived.load(Relaxed));
        drop(held);
        let mut into = lock(&self.usage.into);
        if let Some(coming) = into.get_mut(&self.name) {
            *coming = coming.saturating_sub(self.bytes);
            if *coming == 0 {
                into.remove(&self.name);
            }
        }
    }
}

impl Usage {
    /// Something was asked for.
    pub(super) fn used(&self, name: &Repository, digest: &Digest) {
        let mut times = lock(&self.times);
        let thing = (name.clone(), digest.clone());
        if times.len() < TIMES || times.contains_key(&thing) {
            times.insert(thing, SystemTime::now());
        }
    }

    /// When things were used, to be written down; forgotten here.
    pub(super) fn take_times(&self) -> Times {
        std::mem::take(&mut *lock(&self.times))
    }

    /// Whether something was used since the times were taken.
    pub(super) fn is_used(&self, name: &Repository, digest: &Digest) -> bool {
        lock(&self.times).contains_key(&(name.clone(), digest.clone()))
    }

    /// Holds on to something as long as it is served.
    pub(super) fn serve(&self, digest: &Digest) -> Serving {
        *lock(&self.serving).entry(digest.clone()).or_default() += 1;
        Serving(Arc::clone(&self.serving), digest.clone())
    }

    /// Whether something is being served.
    pub(super) fn is_served(&self, digest: &Digest) -> bool {
        lock(&self.serving).contains_key(digest)
    }

    pub(super) fn held(&self) -> Held {
        *lock(&self.bytes)
    }

    /// What was counted.
    pub(super) fn counted(&self, bytes: u64) {
        lock(&self.bytes).kept = Some(bytes);
    }

    /// Something was kept.
    pub(super) fn grew(&self, bytes: u64) {
        let held = &mut *lock(&self.bytes);
        held.kept = held.kept.map(|kept| kept.saturating_add(bytes));
    }

    /// Something comes into a repository, of which so many bytes are not here yet.
    pub(super) fn coming(self: &Arc<Self>, name: &Repository, bytes: u64, new: u64) -> Coming {
        let mut held = lock(&self.bytes);
        held.coming = held.coming.saturating_add(new);
        drop(held);
        let mut into = lock(&self.into);
        let coming = into.entry(name.clone()).or_default();
        *coming = coming.saturating_add(bytes);
        Coming {
            usage: Arc::clone(self),
            name: name.clone(),
            bytes,
            new,
            arrived: AtomicU64::new(0),
        }
    }

    /// Bytes that come into a repository at the moment.
    pub(super) fn coming_into(&self, name: &Repository) -> u64 {
        lock(&self.into).get(name).copied().unwrap_or_default()
    }

    /// Held by whoever makes room: what two find missing at the same time is not taken away twice, and what one found is there until it
    /// has said that it comes.
    pub(super) fn making(&self) -> MutexGuard<'_, ()> {
        lock(&self.making)
    }

    /// What was evicted, for the metrics: how many things, and their bytes.
    pub(super) fn went(&self, bytes: u64) {
        self.evicted.fetch_add(1, Relaxed);
        self.evicted_bytes.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_twice_is_served_until_the_second_ends() {
        let usage = Usage::default();
        let digest = Digest::of(b"x");
        let (first, second) = (usage.serve(&digest), usage.serve(&digest));
        drop(first);
        assert!(usage.is_served(&digest));
        drop(second);
        assert!(!usage.is_served(&digest));
    }

    #[test]
    fn uses_are_kept_until_they_are_written_down() {
        let usage = Usage::default();
        let (name, digest) = (Repository::parse("a").unwrap(), Digest::of(b"x"));
        usage.used(&name, &digest);
        assert!(usage.is_used(&name, &digest));
        assert_eq!(usage.take_times().len(), 1);
        assert!(!usage.is_used(&name, &digest));
    }

    #[test]
    fn what_comes_counts_until_it_is_there_or_does_not_come() {
        let usage = Arc::new(Usage::default());
        let name = Repository::parse("a").unwrap();
        // The second one's bytes are here already, in another repository.
        let (coming, more) = (usage.coming(&name, 5, 5), usage.coming(&name, 2, 0));
        usage.grew(5);
        assert_eq!((usage.held().coming, usage.held().kept), (5, None));
        assert_eq!(usage.coming_into(&name), 7);
        coming.arrived(3);
        assert_eq!(usage.held().arrived, 3);
        usage.counted(7);
        drop(coming);
        assert_eq!(usage.coming_into(&name), 2);
        assert_eq!((usage.held().coming, usage.held().arrived), (0, 0));
        drop(more);
        assert_eq!(usage.coming_into(&name), 0);
        usage.grew(1);
        assert_eq!((usage.held().coming, usage.held().kept), (0, Some(8)));
    }
}
