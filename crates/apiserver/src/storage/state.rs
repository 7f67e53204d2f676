//! The state in memory: objects by key and the ring of recent changes. Pure; the writer applies, everybody reads.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::LogLimits;

/// A committed object.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The revision of its last write.
    pub(crate) revision: u64,
    /// When it was last written, in seconds since 1970.
    pub(crate) written: i64,
    /// The object, with `metadata.resourceVersion`.
    pub(crate) value: Arc<Value>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One change.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) key: Arc<str>,
    pub(crate) change: Change,
    /// The object after the change; for a deletion its last state, with the deletion's revision.
    pub(crate) value: Arc<Value>,
    /// The object before the change.
    pub(crate) previous: Option<Stored>,
    /// When it happened, in seconds since 1970.
    pub(crate) written: i64,
    /// Size of the serialized record, for the log's bound.
    pub(crate) bytes: usize,
}

/// The revision asked for is older than the oldest change that is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The oldest revision that can still be asked for.
    pub(crate) oldest: u64,
}

/// Objects and recent changes.
#[derive(Debug)]
pub(crate) struct State {
    objects: BTreeMap<Arc<str>, Stored>,
    /// Revisions are contiguous: entry `i` has revision `floor + 1 + i`.
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    revision: u64,
    limits: LogLimits,
}

impl State {
    pub(crate) fn new(revision: u64, limits: LogLimits) -> Self {
        Self {
            objects: BTreeMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            revision,
            limits,
        }
    }

    pub(crate) fn load_object(&mut self, key: Arc<str>, stored: Stored) {
        self.objects.insert(key, stored);
    }

    /// Takes a change from the log on disk; they come in order.
    pub(crate) fn load_change(&mut self, event: Event) {
        self.ring_bytes += event.bytes;
        self.ring.push_back(Arc::new(event));
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision from which a watch can start.
    pub(crate) fn floor(&self) -> u64 {
        self.ring
            .front()
            .map_or(self.revision, |event| event.revision - 1)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Stored> {
        self.objects.get(key).cloned()
    }

    /// Applies a committed change.
    pub(crate) fn apply(&mut self, event: Event) {
        self.revision = event.revision;
        match event.change {
            Change::Deleted => {
                self.objects.remove(&event.key);
            }
            Change::Added | Change::Modified => {
                let stored = Stored {
                    revision: event.revision,
                    written: event.written,
                    value: Arc::clone(&event.value),
                };
                self.objects.insert(Arc::clone(&event.key), stored);
            }
        }
        self.ring_bytes += event.bytes;
        self.ring.push_back(Arc::new(event));
        while self.ring.len() > self.limits.events
            || (self.ring_bytes > self.limits.bytes && self.ring.len() > 1)
        {
            if let Some(old) = self.ring.pop_front() {
                self.ring_bytes -= old.bytes;
            }
        }
    }

    fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Stored)> {
        self.objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        at: Option<u64>,
    ) -> Result<(super::Listed, u64), Expired> {
        let at = at.unwrap_or(self.revision).min(self.revision);
        if at < self.floor() {
            return Err(Expired {
                oldest: self.floor(),
            });
        }
        if at == self.revision {
            return Ok((
                self.range(prefix)
                    .map(|(k, v)| (Arc::clone(k), v.clone()))
                    .collect(),
                at,
            ));
        }
        // Undo what came later, newest first.
        let mut objects: BTreeMap<Arc<str>, Stored> = self
            .range(prefix)
            .map(|(k, v)| (Arc::clone(k), v.clone()))
            .collect();
        for event in self
            .ring
            .iter()
            .rev()
            .take_while(|event| event.revision > at)
        {
            if !event.key.starts_with(prefix) {
                continue;
            }
            match &event.previous {
                Some(previous) => objects.insert(Arc::clone(&event.key), previous.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok((objects.into_iter().collect(), at))
    }

    pub(crate) fn changes(
        &self,
        prefix: &str,
        after: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), Expired> {
        let floor = self.floor();
        if after < floor {
            return Err(Expired { oldest: floor });
        }
        let skip = usize::try_from(after - floor).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut complete = after.max(floor);
        for event in self.ring.iter().skip(skip) {
            if found.len() == max {
                return Ok((found, complete));
            }
            if event.key.starts_with(prefix) {
                found.push(Arc::clone(event));
            }
            complete = event.revision;
        }
        Ok((found, complete))
    }
}
