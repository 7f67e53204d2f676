//! What the log comes to: pure, so that every process that reads the same entries knows the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use towline_oci::Digest;

use crate::storage::ManifestRecord;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(super) enum Op {
    /// A blob lies under this name in the bucket.
    Blob {
        digest: Digest,
        key: String,
        size: u64,
        at: u64,
    },
    /// A blob is gone.
    Forget {
        digest: Digest,
    },
    /// A repository holds a blob, or holds it still.
    Link {
        repository: String,
        digest: Digest,
        at: u64,
    },
    Unlink {
        repository: String,
        digest: Digest,
    },
    Manifest {
        repository: String,
        digest: Digest,
        record: ManifestRecord,
    },
    /// Takes its tags and its place among referrers along.
    DeleteManifest {
        repository: String,
        digest: Digest,
    },
    Tag {
        repository: String,
        tag: String,
        digest: Digest,
    },
    DeleteTag {
        repository: String,
        tag: String,
    },
    Refer {
        repository: String,
        subject: Digest,
        referrer: Digest,
        descriptor: Value,
        at: u64,
    },
    ForgetReferrer {
        repository: String,
        subject: Digest,
        referrer: Digest,
    },
}

/// An entry of the log: what one writer changed at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The process that wrote it.
    pub(super) writer: String,
    /// Tells it from others of the same process.
    pub(super) nonce: u64,
    pub(super) ops: Vec<Op>,
}

/// A blob in the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) at: u64,
}

/// A repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Holding {
    pub(super) blobs: BTreeMap<Digest, u64>,
    pub(super) manifests: BTreeMap<Digest, ManifestRecord>,
    pub(super) tags: BTreeMap<String, Digest>,
    pub(super) referrers: BTreeMap<Digest, BTreeMap<Digest, (Value, u64)>>,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The entries that it comes from.
    pub(super) entries: u64,
    pub(super) blobs: BTreeMap<Digest, Kept>,
    pub(super) repositories: BTreeMap<String, Holding>,
    /// Who wrote the last entry.
    #[serde(default)]
    writer: String,
    /// From which entry on it is known where writers changed; a snapshot that does not say so knows nothing of what came before it.
    #[serde(default)]
    known: Option<u64>,
    /// The entries with which a writer began.
    #[serde(default)]
    begins: BTreeSet<u64>,
}

impl State {
    /// Nothing, before the first entry.
    pub(super) fn new() -> Self {
        Self {
            known: Some(0),
            ..Self::default()
        }
    }

    /// Whether an entry must stay although snapshots hold what it says.
    ///
    /// A writer that slept wakes at the place of its own next entry, and has to find that place taken. It is where the next writer
    /// began; or the entry before that, if it is the sleeper's own and the answer to its writing was lost. One more stays for good measure.
    pub(super) fn must_stay(&self, number: u64) -> bool {
        let is_known = self.known.is_some_and(|known| known <= number);
        !is_known
            || self
                .begins
                .range(number..=number.saturating_add(2))
                .next()
                .is_some()
    }

    /// The last entry of which it is not known whether a writer began there, if there is one.
    pub(super) fn unknown_until(&self) -> Option<u64> {
        self.known.unwrap_or(self.entries).checked_sub(1)
    }

    /// At most how many entries before this one must stay, of those of which it is known.
    pub(super) fn kept_below(&self, number: u64) -> usize {
        self.begins.range(..number.saturating_add(2)).count() * 3
    }

    /// What a snapshot says, read by one who may know less of its form than the one who wrote it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut state: Self = serde_json::from_slice(bytes).ok()?;
        state.known.get_or_insert(state.entries);
        Some(state)
    }

    /// The next entry of the log.
    pub(super) fn apply(&mut self, entry: &Entry) {
        if self.writer != entry.writer {
            self.begins.insert(self.entries);
            self.writer.clone_from(&entry.writer);
        }
        self.entries += 1;
        for op in &entry.ops {
            self.change(op.clone());
        }
    }

    fn holding(&mut self, repository: String) -> &mut Holding {
        self.repositories.entry(repository).or_default()
    }

    fn change(&mut self, op: Op) {
        match op {
            Op::Blob {
                digest,
                key,
                size,
                at,
            } => {
                self.blobs.insert(digest, Kept { key, size, at });
            }
            Op::Forget { digest } => {
                self.blobs.remove(&digest);
            }
            Op::Link {
                repository,
                digest,
                at,
            } => {
                self.holding(repository).blobs.insert(digest, at);
            }
            Op::Unlink { repository, digest } => {
                self.holding(repository).blobs.remove(&digest);
            }
            Op::Manifest {
                repository,
                digest,
                record,
            } => {
                self.holding(repository).manifests.insert(digest, record);
            }
            Op::DeleteManifest { repository, digest } => {
                let holding = self.holding(repository);
                let record = holding.manifests.remove(&digest);
                holding.tags.retain(|_, named| *named != digest);
                if let Some(subject) = record.and_then(|record| record.subject) {
                    holding.forget_referrer(&subject, &digest);
                }
            }
            Op::Tag {
                repository,
                tag,
                digest,
            } => {
                self.holding(repository).tags.insert(tag, digest);
            }
            Op::DeleteTag { repository, tag } => {
                self.holding(repository).tags.remove(&tag);
            }
            Op::Refer {
                repository,
                subject,
                referrer,
                descriptor,
                at,
            } => {
                let referrers = &mut self.holding(repository).referrers;
                let of = referrers.entry(subject).or_default();
                of.insert(referrer, (descriptor, at));
            }
            Op::ForgetReferrer {
                repository,
                subject,
                referrer,
            } => {
                self.holding(repository)
                    .forget_referrer(&subject, &referrer);
            }
        }
    }
}

impl Holding {
    fn forget_referrer(&mut self, subject: &Digest, referrer: &Digest) {
        if let Some(of) = self.referrers.get_mut(subject) {
            of.remove(referrer);
            if of.is_empty() {
                self.referrers.remove(subject);
            }
        }
    }
}

/// A moment as the log writes it: seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The moment that the log means.
pub(super) fn moment(seconds: u64) -> SystemTime {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_comes_to_the_same_by_way_of_a_snapshot() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let name = || "team/app".to_owned();
        let record = ManifestRecord {
            media_type: "m".to_owned(),
            subject: Some(a.clone()),
        };
        let entry = |nonce, ops| Entry {
            writer: "w".to_owned(),
            nonce,
            ops,
        };
        let log = [
            entry(0, Vec::new()),
            entry(
                1,
                vec![
                    Op::Blob {
                        digest: b.clone(),
                        key: "k".to_owned(),
                        size: 1,
                        at: 5,
                    },
                    Op::Link {
                        repository: name(),
                        digest: b.clone(),
                        at: 5,
                    },
                ],
            ),
            entry(
                2,
                vec![
                    Op::Refer {
                        repository: name(),
                        subject: a.clone(),
                        referrer: b.clone(),
                        descriptor: Value::Null,
                        at: 6,
                    },
                    Op::Manifest {
                        repository: name(),
                        digest: b.clone(),
                        record,
                    },
                    Op::Tag {
                        repository: name(),
                        tag: "v1".to_owned(),
                        digest: b.clone(),
                    },
                    Op::Tag {
                        repository: name(),
                        tag: "v2".to_owned(),
                        digest: a,
                    },
                ],
            ),
            entry(
                3,
                vec![Op::DeleteManifest {
                    repository: name(),
                    digest: b,
                }],
            ),
        ];
        let mut state = State::new();
        let mut reread = State::new();
        for (number, entry) in log.iter().enumerate() {
            let text = serde_json::to_string(entry).unwrap();
            state.apply(&serde_json::from_str(&text).unwrap());
            reread.apply(entry);
            reread = serde_json::from_slice(&serde_json::to_vec(&reread).unwrap()).unwrap();
            assert_eq!(state, reread, "{number}");
        }
        let holding = &state.repositories["team/app"];
        assert_eq!(holding.tags.keys().collect::<Vec<_>>(), ["v2"]);
        assert!(holding.referrers.is_empty() && holding.manifests.is_empty());
        assert_eq!((state.entries, state.blobs.len()), (4, 1));
    }

    #[test]
    fn where_a_writer_began_and_what_may_lie_before_it_stays() {
        let mut state = State::new();
        for writer in ["a", "a", "a", "a", "a", "a", "b", "b", "b", "b", "c"] {
            state.apply(&Entry {
                writer: writer.to_owned(),
                nonce: 1,
                ops: Vec::new(),
            });
        }
        let stay: Vec<u64> = (0..11).filter(|number| state.must_stay(*number)).collect();
        assert_eq!(stay, [0, 4, 5, 6, 8, 9, 10]);
        // A snapshot of the time before this was written down says nothing of the entries before it.
        let mut older = serde_json::to_value(&state).unwrap();
        for field in ["writer", "known", "begins"] {
            older.as_object_mut().unwrap().remove(field);
        }
        let older = State::read(older.to_string().as_bytes()).unwrap();
        assert!((0..11).all(|number| older.must_stay(number)) && !older.must_stay(11));
    }
}
