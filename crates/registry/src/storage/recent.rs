//! What was read of repositories lately, in memory: manifests by tag and digest, and lists of tags.
//!
//! Whoever changes a repository makes everything of it forgotten, so that what is found here is what the disk holds. Two generations
//! bound the memory: what is used is in the younger one, and when that is full, the older one goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use towline_oci::Digest;

use crate::names::Repository;

/// Bytes of one generation: with both of them full, an idle registry stays below 16 MiB.
const GENERATION: usize = 3 << 20;
/// The largest thing that is kept, in bytes.
const LARGEST: usize = 1 << 20;
/// What an entry costs besides its bytes, roughly.
const OVERHEAD: usize = 400;
/// What a tag in a list costs besides its bytes, roughly.
const TAG_OVERHEAD: usize = 32;

/// A manifest that a repository holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its digest.
    pub(crate) digest: Digest,
    /// The media type under which it came.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

/// What is remembered under one name.
#[derive(Clone, Debug)]
enum Thing {
    Manifest(Held),
    Tags(Arc<[String]>),
}

impl Thing {
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Manifest(held) => held.bytes.len(),
                Self::Tags(tags) => tags.iter().map(|tag| tag.len() + TAG_OVERHEAD).sum(),
            }
    }
}

/// The name of the list of tags; no manifest has it.
const TAGS: &str = "/tags";

type Entries = HashMap<Repository, HashMap<String, Thing>>;

#[derive(Debug, Default)]
struct Generations {
    young: Entries,
    old: Entries,
    /// What the younger one costs.
    cost: usize,
    /// How often something changed.
    changes: u64,
}

/// What was read lately.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Generations>);

/// When reading began. What was read is not kept if something changed since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(u64);

/// A change to a repository that is under way; its end makes everything of it forgotten, also if it failed half way.
#[derive(Debug)]
pub(crate) struct Changing<'a>(&'a Recent, &'a Repository);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut all = self.0.lock();
        all.changes += 1;
        all.old.remove(self.1);
        let gone = all.young.remove(self.1);
        let cost: usize = gone.iter().flatten().map(|(_, thing)| thing.cost()).sum();
        all.cost -= cost.min(all.cost);
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before anything is read that is to be kept.
    pub(crate) fn since(&self) -> Since {
        Since(self.lock().changes)
    }

    /// Holds on to what changes a repository.
    pub(crate) fn changing<'a>(&'a self, repository: &'a Repository) -> Changing<'a> {
        Changing(self, repository)
    }

    /// The manifest that a repository holds under a tag or digest.
    pub(crate) fn manifest(&self, repository: &Repository, name: &str) -> Option<Held> {
        match self.lock().find(repository, name)? {
            Thing::Manifest(held) => Some(held),
            Thing::Tags(_) => None,
        }
    }

    /// The sorted tags of a repository.
    pub(crate) fn tags(&self, repository: &Repository) -> Option<Arc<[String]>> {
        match self.lock().find(repository, TAGS)? {
            Thing::Tags(tags) => Some(tags),
            Thing::Manifest(_) => None,
        }
    }

    /// Keeps a manifest that was read.
    pub(crate) fn keep_manifest(
        &self,
        since: Since,
        repository: &Repository,
        name: &str,
        held: &Held,
    ) {
        self.lock()
            .keep(since, repository, name, Thing::Manifest(held.clone()));
    }

    /// Keeps a list of tags that was read.
    pub(crate) fn keep_tags(&self, since: Since, repository: &Repository, tags: &Arc<[String]>) {
        self.lock()
            .keep(since, repository, TAGS, Thing::Tags(Arc::clone(tags)));
    }
}

impl Generations {
    fn find(&mut self, repository: &Repository, name: &str) -> Option<Thing> {
        if let Some(found) = self.young.get(repository).and_then(|all| all.get(name)) {
            return Some(found.clone());
        }
        let found = self.old.get_mut(repository)?.remove(name)?;
        self.insert(repository, name, found.clone());
        Some(found)
    }

    fn keep(&mut self, since: Since, repository: &Repository, name: &str, thing: Thing) {
        if since.0 == self.changes && thing.cost() <= LARGEST {
            self.insert(repository, name, thing);
        }
    }

    fn insert(&mut self, repository: &Repository, name: &str, thing: Thing) {
        let cost = thing.cost();
        if self.cost + cost > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.cost = 0;
        }
        self.cost += cost;
        let all = self.young.entry(repository.clone()).or_default();
        if let Some(before) = all.insert(name.to_owned(), thing) {
            self.cost -= before.cost().min(self.cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(bytes: &[u8]) -> Held {
        Held {
            digest: Digest::of(bytes),
            media_type: "m".to_owned(),
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    #[test]
    fn a_change_makes_a_repository_forgotten_and_what_was_read_before_it_is_not_kept() {
        let recent = Recent::default();
        let [a, b] = ["a", "b"].map(|name| Repository::parse(name).unwrap());
        let since = recent.since();
        for name in [&a, &b] {
            recent.keep_manifest(since, name, "v1", &held(b"one"));
        }
        assert_eq!(recent.manifest(&a, "v1").unwrap().bytes, "one");
        let before = recent.since();
        drop(recent.changing(&a));
        assert!(recent.manifest(&a, "v1").is_none());
        assert!(recent.manifest(&b, "v1").is_some());
        recent.keep_manifest(before, &a, "v1", &held(b"one"));
        assert!(recent.manifest(&a, "v1").is_none());
        recent.keep_tags(recent.since(), &a, &["v1".to_owned()].into());
        assert_eq!(*recent.tags(&a).unwrap(), ["v1".to_owned()]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let recent = Recent::default();
        let name = Repository::parse("a").unwrap();
        let since = recent.since();
        let large = held(&vec![0; 100_000]);
        for number in 0..1000 {
            recent.keep_manifest(since, &name, &number.to_string(), &large);
            assert!(recent.manifest(&name, "0").is_some(), "{number}");
        }
        let all = recent.lock();
        let kept = |entries: &Entries| entries.values().map(HashMap::len).sum::<usize>();
        assert!(kept(&all.young) + kept(&all.old) <= 2 * GENERATION / 100_000 + 1);
        drop(all);
        recent.keep_manifest(since, &name, "big", &held(&vec![0; LARGEST]));
        assert!(recent.manifest(&name, "big").is_none());
    }
}
