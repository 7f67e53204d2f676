//! The file: tables `objects`, `log` and `meta`, and how a record looks.
//!
//! An object is eight bytes (seconds of its last write, little endian) and its JSON. A change is a JSON record with the
//! object after and before, so that watches go on after a restart. `meta` holds the format and the revision.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::{Value, json};

use super::state::{Change, Event, State, Stored};
use super::{LogLimits, StoreError};

const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("objects");
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// The format this program writes.
const FORMAT: u64 = 1;
/// Revisions start above zero, which has a meaning of its own in the API.
const FIRST_REVISION: u64 = 1;

/// The open database.
pub(super) struct Disk {
    database: Database,
    /// Changes with a lower revision have been removed from the log.
    trimmed: u64,
}

fn disk<E: Into<redb::Error>>(step: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Disk {
        step,
        source: Box::new(error.into()),
    }
}

impl Disk {
    /// Opens the file and reads everything into memory.
    pub(super) fn open(path: &Path, limits: LogLimits) -> Result<(Self, State), StoreError> {
        let database = Database::create(path).map_err(disk("open"))?;
        let transaction = database.begin_write().map_err(disk("open"))?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(disk("open"))?;
            transaction.open_table(OBJECTS).map_err(disk("open"))?;
            transaction.open_table(LOG).map_err(disk("open"))?;
            let format = meta
                .get("format")
                .map_err(disk("read"))?
                .map(|guard| guard.value());
            match format {
                None => {
                    meta.insert("format", FORMAT).map_err(disk("write"))?;
                    meta.insert("revision", FIRST_REVISION)
                        .map_err(disk("write"))?;
                }
                Some(found) if found > FORMAT => {
                    return Err(StoreError::Newer {
                        found,
                        known: FORMAT,
                    });
                }
                Some(_) => {}
            }
            meta.get("revision")
                .map_err(disk("read"))?
                .map_or(FIRST_REVISION, |guard| guard.value())
        };
        transaction.commit().map_err(disk("write"))?;
        let mut state = State::new(revision, limits);
        let read = database.begin_read().map_err(disk("read"))?;
        let objects = read.open_table(OBJECTS).map_err(disk("read"))?;
        for record in objects.iter().map_err(disk("read"))? {
            let (key, value) = record.map_err(disk("read"))?;
            let stored = decode_object(key.value(), value.value())?;
            state.load_object(Arc::from(key.value()), stored);
        }
        let log = read.open_table(LOG).map_err(disk("read"))?;
        let mut trimmed = revision;
        for record in log.iter().map_err(disk("read"))? {
            let (revision, value) = record.map_err(disk("read"))?;
            trimmed = trimmed.min(revision.value());
            state.load_change(decode_change(revision.value(), value.value())?);
        }
        Ok((Self { database, trimmed }, state))
    }

    /// Commits changes in one durable transaction and removes log records below `oldest`.
    pub(super) fn commit(&mut self, changes: &mut [Event], oldest: u64) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(disk("write to"))?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(disk("write to"))?;
            let mut log = transaction.open_table(LOG).map_err(disk("write to"))?;
            let mut meta = transaction.open_table(META).map_err(disk("write to"))?;
            for event in changes.iter_mut() {
                let body = encode_object(&event.value, event.written);
                if event.change == Change::Deleted {
                    objects.remove(&*event.key).map_err(disk("write to"))?;
                } else {
                    objects
                        .insert(&*event.key, body.as_slice())
                        .map_err(disk("write to"))?;
                }
                let record = encode_change(event);
                event.bytes = record.len();
                log.insert(event.revision, record.as_slice())
                    .map_err(disk("write to"))?;
                meta.insert("revision", event.revision)
                    .map_err(disk("write to"))?;
            }
            for revision in self.trimmed..oldest {
                log.remove(revision).map_err(disk("write to"))?;
            }
        }
        transaction.commit().map_err(disk("commit to"))?;
        self.trimmed = self.trimmed.max(oldest);
        Ok(())
    }
}

fn encode_object(value: &Value, written: i64) -> Vec<u8> {
    let mut out = written.to_le_bytes().to_vec();
    out.extend_from_slice(value.to_string().as_bytes());
    out
}

fn damaged(key: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        key: key.to_owned(),
        why: why.to_string(),
    }
}

fn decode_object(key: &str, bytes: &[u8]) -> Result<Stored, StoreError> {
    let (head, body) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged(key, "too short"))?;
    let value: Value = serde_json::from_slice(body).map_err(|error| damaged(key, error))?;
    Ok(Stored {
        revision: super::state_revision(&value)
            .ok_or_else(|| damaged(key, "no resourceVersion"))?,
        written: i64::from_le_bytes(*head),
        value: Arc::new(value),
    })
}

fn encode_change(event: &Event) -> Vec<u8> {
    let name = match event.change {
        Change::Added => "A",
        Change::Modified => "M",
        Change::Deleted => "D",
    };
    json!({
        "k": &*event.key, "t": name, "w": event.written, "o": &*event.value,
        "p": event.previous.as_ref().map(|previous| &*previous.value),
        "pw": event.previous.as_ref().map(|previous| previous.written),
    })
    .to_string()
    .into_bytes()
}

fn decode_change(revision: u64, bytes: &[u8]) -> Result<Event, StoreError> {
    let place = format!("log/{revision}");
    let mut record: Value =
        serde_json::from_slice(bytes).map_err(|error| damaged(&place, error))?;
    let change = match record["t"].as_str() {
        Some("A") => Change::Added,
        Some("M") => Change::Modified,
        Some("D") => Change::Deleted,
        _ => return Err(damaged(&place, "unknown type of change")),
    };
    let key = Arc::from(
        record["k"]
            .as_str()
            .ok_or_else(|| damaged(&place, "no key"))?,
    );
    let previous = record["p"].take();
    let previous = super::state_revision(&previous).map(|revision| Stored {
        revision,
        written: record["pw"].as_i64().unwrap_or_default(),
        value: Arc::new(previous),
    });
    Ok(Event {
        revision,
        key,
        change,
        written: record["w"].as_i64().unwrap_or_default(),
        value: Arc::new(record["o"].take()),
        previous,
        bytes: bytes.len(),
    })
}
