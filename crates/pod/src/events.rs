//! Event correlation as Kubernetes' clients do it: equal events become one with a count, many similar ones become
//! `(combined from similar events)`, and a token bucket for each object and type drops what is too much.
//!
//! Pure: the caller writes what comes out. Counts grow also while writes are dropped, so a later write tells the true
//! number; that is how the events of a failing pod look in a real cluster.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::pull::{EventText, EventType};

/// Size of the token bucket of one object and type.
pub const BURST: f64 = 25.0;
/// Seconds until one token comes back.
pub const REFILL_SECONDS: f64 = 300.0;
/// Distinct messages of one reason from which on they are combined.
pub const SIMILAR: usize = 10;
/// Seconds without a similar event after which combining starts anew.
pub const SIMILAR_SECONDS: i64 = 600;
/// Entries kept of each kind; the one that was used longest ago is dropped.
pub const MAX_ENTRIES: usize = 4096;

/// What an event is about and who writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Component that writes: `kubelet`.
    pub component: String,
    /// Host it runs on: the node's name.
    pub host: String,
    /// API version of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the bucket is empty.
    Drop,
    /// A new event.
    Create(Record),
    /// A new count, message and last time of an event written before. When it is gone by now, create it.
    Update(Record),
}

/// An event as it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name: `<object>.<nanoseconds in hexadecimal>`.
    pub name: String,
    /// Its message, which may be a combined one.
    pub message: String,
    /// How often it happened.
    pub count: u32,
    /// First time.
    pub first: Timestamp,
    /// Last time.
    pub last: Timestamp,
    /// True when it stands for similar events; then it has no field path.
    pub combined: bool,
}

type SimilarKey = (Subject, EventType, String);
type EventKey = (Subject, EventType, String, Option<(String, String)>);

#[derive(Clone, Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Clone, Debug)]
struct Seen {
    name: String,
    count: u32,
    first: Timestamp,
    used: Timestamp,
}

#[derive(Clone, Debug)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

/// The memory of one writer of events.
#[derive(Clone, Debug, Default)]
pub struct Correlator {
    similar: BTreeMap<SimilarKey, Similar>,
    seen: BTreeMap<EventKey, Seen>,
    buckets: BTreeMap<(Subject, EventType), Bucket>,
}

impl Correlator {
    /// Nothing was seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what becomes of an event at `now`. `field_path` names the part of the object; it tells equal events apart, but
    /// all parts share the bucket.
    pub fn observe(
        &mut self,
        subject: &Subject,
        field_path: &str,
        event: &EventText,
        now: Timestamp,
    ) -> Outcome {
        let combined = self.combines(subject, event, now);
        let key = if combined {
            None
        } else {
            Some((field_path.to_owned(), event.message.clone()))
        };
        let key = (subject.clone(), event.type_, event.reason.to_string(), key);
        let known = self.seen.get(&key).cloned();
        let seen = match &known {
            Some(seen) => Seen {
                count: seen.count.saturating_add(1),
                used: now,
                ..seen.clone()
            },
            None => Seen {
                name: name(&subject.name, now),
                count: 1,
                first: now,
                used: now,
            },
        };
        bound(&mut self.seen, |seen| seen.used);
        self.seen.insert(key, seen.clone());
        if !self.take_token(subject, event.type_, now) {
            return Outcome::Drop;
        }
        let message = if combined {
            format!("(combined from similar events): {}", event.message)
        } else {
            event.message.clone()
        };
        let record = Record {
            name: seen.name,
            message,
            count: seen.count,
            first: seen.first,
            last: now,
            combined,
        };
        if known.is_some() {
            Outcome::Update(record)
        } else {
            Outcome::Create(record)
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&mut self, uid: &str) {
        self.similar.retain(|(subject, ..), _| subject.uid != uid);
        self.seen.retain(|(subject, ..), _| subject.uid != uid);
        self.buckets.retain(|(subject, _), _| subject.uid != uid);
    }

    fn combines(&mut self, subject: &Subject, event: &EventText, now: Timestamp) -> bool {
        bound(&mut self.similar, |similar| similar.last);
        let key = (subject.clone(), event.type_, event.reason.to_string());
        let similar = self.similar.entry(key).or_insert_with(|| Similar {
            messages: BTreeSet::new(),
            last: now,
        });
        if now.duration_since(similar.last).as_secs() > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.messages.insert(event.message.clone());
        similar.last = now;
        let combines = similar.messages.len() >= SIMILAR;
        if combines {
            // One is dropped, so that the set stays small; the next new message reaches the limit again.
            similar.messages.pop_first();
        }
        combines
    }

    fn take_token(&mut self, subject: &Subject, type_: EventType, now: Timestamp) -> bool {
        bound(&mut self.buckets, |bucket| bucket.filled);
        let bucket = self
            .buckets
            .entry((subject.clone(), type_))
            .or_insert_with(|| Bucket {
                tokens: BURST,
                filled: now,
            });
        let elapsed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed / REFILL_SECONDS).min(BURST);
        bucket.filled = now;
        // Rounding must not cost a token that is due to the second.
        if bucket.tokens < 1.0 - 1e-9 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn name(object: &str, now: Timestamp) -> String {
    format!("{object}.{:x}", now.as_nanosecond())
}

/// Makes room for one more.
fn bound<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, used: impl Fn(&V) -> Timestamp) {
    if map.len() < MAX_ENTRIES {
        return;
    }
    if let Some(oldest) = map
        .iter()
        .min_by_key(|(_, value)| used(value))
        .map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn subject() -> Subject {
        Subject {
            component: "kubelet".into(),
            host: "n".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: "default".into(),
            name: "p".into(),
            uid: "u".into(),
        }
    }

    fn record(outcome: Outcome) -> Record {
        match outcome {
            Outcome::Create(record) | Outcome::Update(record) => record,
            Outcome::Drop => panic!("dropped"),
        }
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::new();
        let event = EventText::normal("Pulling", "Pulling image \"i\"");
        let first = correlator.observe(&subject(), "spec.containers{a}", &event, at(0));
        let Outcome::Create(created) = first else {
            panic!("{first:?}")
        };
        assert_eq!(created.name, format!("p.{:x}", at(0).as_nanosecond()));
        let second = correlator.observe(&subject(), "spec.containers{a}", &event, at(5));
        let Outcome::Update(updated) = second else {
            panic!("{second:?}")
        };
        assert_eq!(
            (updated.name, updated.count, updated.first, updated.last),
            (created.name, 2, at(0), at(5))
        );
        let other = correlator.observe(&subject(), "spec.containers{b}", &event, at(6));
        assert!(
            matches!(other, Outcome::Create(Record { count: 1, .. })),
            "{other:?}"
        );
    }

    #[test]
    fn the_bucket_of_a_type_empties_and_fills_while_counts_go_on() {
        let mut correlator = Correlator::new();
        let warning = EventText::warning("Failed", "Error: ErrImagePull");
        for i in 0..25 {
            assert_ne!(
                correlator.observe(&subject(), "", &warning, at(i / 100)),
                Outcome::Drop,
                "{i}"
            );
        }
        assert_eq!(
            correlator.observe(&subject(), "", &warning, at(1)),
            Outcome::Drop
        );
        assert_eq!(
            correlator.observe(&subject(), "", &warning, at(299)),
            Outcome::Drop
        );
        assert_eq!(
            record(correlator.observe(&subject(), "", &warning, at(300))).count,
            28
        );
        assert_eq!(
            correlator.observe(&subject(), "", &warning, at(301)),
            Outcome::Drop
        );
        let normal = EventText::normal("BackOff", "x");
        assert_ne!(
            correlator.observe(&subject(), "", &normal, at(301)),
            Outcome::Drop
        );
        correlator.forget("u");
        assert_eq!(
            record(correlator.observe(&subject(), "", &warning, at(302))).count,
            1
        );
    }

    #[test]
    fn ten_distinct_messages_are_combined() {
        let mut correlator = Correlator::new();
        let event = |i: i64| EventText::warning("Failed", format!("port {i}"));
        for i in 0..9 {
            assert!(
                !record(correlator.observe(&subject(), "f", &event(i), at(i))).combined,
                "{i}"
            );
        }
        let tenth = record(correlator.observe(&subject(), "f", &event(9), at(9)));
        assert_eq!(tenth.message, "(combined from similar events): port 9");
        assert_eq!((tenth.count, tenth.combined), (1, true));
        let next = record(correlator.observe(&subject(), "f", &event(10), at(10)));
        assert_eq!((next.count, next.name), (2, tenth.name));
        let later = record(correlator.observe(&subject(), "f", &event(11), at(10 + 601)));
        assert!(!later.combined);
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::new();
        let event = EventText::normal("r", "m");
        for i in 0..=MAX_ENTRIES {
            let subject = Subject {
                uid: i.to_string(),
                ..subject()
            };
            correlator.observe(&subject, "", &event, at(i64::try_from(i).unwrap()));
        }
        assert_eq!(correlator.seen.len(), MAX_ENTRIES);
        assert_eq!(correlator.buckets.len(), MAX_ENTRIES);
        assert_eq!(correlator.similar.len(), MAX_ENTRIES);
    }
}
