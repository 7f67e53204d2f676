//! The one thread that writes: takes what waits, checks expectations, commits once, then shows it to the readers.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::Disk;
use super::state::{Change, Event, State, Stored};
use super::{Expect, Operation, WriteError};

/// Writes that share one commit at most.
const BATCH: usize = 128;

type Answer = (oneshot::Sender<Result<Stored, WriteError>>, Stored);

/// Runs until it is asked to stop or every sender is gone.
pub(super) fn run(
    mut disk: Disk,
    state: &RwLock<State>,
    mut queue: mpsc::Receiver<Option<Operation>>,
    revision: &watch::Sender<u64>,
) {
    while let Some(Some(first)) = queue.blocking_recv() {
        let mut batch = vec![first];
        let mut stop = false;
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            let Some(next) = next else {
                stop = true;
                break;
            };
            batch.push(next);
        }
        write(&mut disk, state, batch, revision);
        if stop {
            return;
        }
    }
}

fn write(
    disk: &mut Disk,
    state: &RwLock<State>,
    batch: Vec<Operation>,
    revision: &watch::Sender<u64>,
) {
    let (mut changes, answers, oldest) = prepare(state, batch);
    if changes.is_empty() {
        return;
    }
    match disk.commit(&mut changes, oldest) {
        Ok(()) => {
            let newest = {
                let mut state = state
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                for event in changes {
                    state.apply(event);
                }
                state.revision()
            };
            revision.send_replace(newest);
            for (reply, stored) in answers {
                reply.send(Ok(stored)).ok();
            }
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a write to the object store failed"
            );
            let error = Arc::new(error);
            for (reply, _) in answers {
                reply.send(Err(WriteError::Store(Arc::clone(&error)))).ok();
            }
        }
    }
}

/// Decides each write against the committed state and the writes before it in the batch.
fn prepare(state: &RwLock<State>, batch: Vec<Operation>) -> (Vec<Event>, Vec<Answer>, u64) {
    let state = state
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut pending: HashMap<Arc<str>, Option<Stored>> = HashMap::new();
    let (mut changes, mut answers) = (Vec::new(), Vec::new());
    let mut next = state.revision();
    for operation in batch {
        let current = pending
            .get(&operation.key)
            .cloned()
            .unwrap_or_else(|| state.get(&operation.key));
        let holds = match (operation.expect, &current) {
            (Expect::Absent, None) => true,
            (Expect::Revision(wanted), Some(stored)) => stored.revision == wanted,
            _ => false,
        };
        if !holds {
            operation.reply.send(Err(WriteError::Conflict)).ok();
            continue;
        }
        let (change, mut value) = match (operation.value, &current) {
            (Some(value), None) => (Change::Added, value),
            (Some(value), Some(_)) => (Change::Modified, value),
            (None, Some(stored)) => (Change::Deleted, Value::clone(&stored.value)),
            (None, None) => {
                operation.reply.send(Err(WriteError::Conflict)).ok();
                continue;
            }
        };
        next += 1;
        value["metadata"]["resourceVersion"] = json!(next.to_string());
        let stored = Stored {
            revision: next,
            written: operation.now,
            value: Arc::new(value),
        };
        let after = (change != Change::Deleted).then(|| stored.clone());
        pending.insert(Arc::clone(&operation.key), after);
        changes.push(Event {
            revision: next,
            key: operation.key,
            change,
            value: Arc::clone(&stored.value),
            previous: current,
            written: operation.now,
            bytes: 0,
        });
        answers.push((operation.reply, stored));
    }
    let oldest = state.floor() + 1;
    (changes, answers, oldest)
}
