//! A log that does not only grow: entries that two snapshots hold go when they are old.
//!
//! Two things rely on entries that are old. A reader that was away looks for the next one: where it is gone, the reader finds a
//! snapshot that is further, and goes on from there. And a writer that slept puts its next entry where the next writer began: those
//! entries stay for ever (`State::must_stay`), so that it is fenced however late it wakes. Ages are told by the storage's own clock.

use std::time::{Duration, SystemTime};

use super::client::Listed;
use super::journal::{Journal, entry_name, entry_number, snapshot_number};
use crate::storage::StorageError;

/// How often it is looked, at most.
const LOOK: Duration = Duration::from_secs(60);
/// Entries that go in one round.
const ROUND: usize = 1000;
/// Snapshots that stay: one may be read while the next one is written.
const SNAPSHOTS: usize = 2;

impl Journal {
    /// Takes old entries and snapshots away as long as this is the writer. Never ends.
    pub(crate) async fn keep_log_short(&self) {
        loop {
            tokio::time::sleep(LOOK.min(self.log_kept.max(Duration::from_secs(1)))).await;
            if self.is_writer()
                && let Err(error) = self.compact().await
            {
                let error = towline_sys::task::chain(&error);
                tracing::warn!(error, "shorten the log");
            }
        }
    }

    async fn compact(&self) -> Result<(), StorageError> {
        let snapshots = self.client.list("snapshots/", None, ROUND).await?;
        let Some(floor) = snapshots.get(SNAPSHOTS - 1) else {
            return Ok(());
        };
        let Some(floor) = snapshot_number(&floor.key) else {
            return Ok(());
        };
        // Newer than anything that goes, and written just now.
        let lease = self.client.list("lease", None, 1).await?;
        let Some(now) = lease.first().and_then(time) else {
            return Ok(());
        };
        let is_old = |one: &Listed| {
            let age = time(one).and_then(|at| now.duration_since(at).ok());
            age.is_some_and(|age| age >= self.log_kept)
        };
        for snapshot in snapshots.iter().skip(SNAPSHOTS).filter(|one| is_old(one)) {
            self.client.delete(&snapshot.key).await?;
        }
        let (kept, after) = self.read(|state| (state.kept_below(floor), state.unknown_until()));
        // Behind those that stay for ever, of which there are some at the beginning, and all of which nothing is known.
        let after = after.map(entry_name);
        let entries = self
            .client
            .list("log/", after.as_deref(), kept + ROUND)
            .await?;
        for entry in entries.iter().filter(|one| is_old(one)) {
            let Some(number) = entry_number(&entry.key).filter(|number| *number < floor) else {
                continue;
            };
            if !self.read(|state| state.must_stay(number)) {
                self.client.delete(&entry.key).await?;
            }
        }
        Ok(())
    }
}

fn time(one: &Listed) -> Option<SystemTime> {
    one.at.map(SystemTime::from)
}
