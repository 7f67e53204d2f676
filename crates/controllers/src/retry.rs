//! When work that failed is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each failure doubles it.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Work that waits for its time: what failed, and what only time can change.
#[derive(Debug)]
pub(crate) struct Retry<W> {
    failures: BTreeMap<W, u32>,
    due: BTreeMap<W, Instant>,
}

impl<W> Default for Retry<W> {
    fn default() -> Self {
        Self {
            failures: BTreeMap::new(),
            due: BTreeMap::new(),
        }
    }
}

impl<W: Ord + Clone> Retry<W> {
    /// The work succeeded; it is due again after `again`, if at all.
    pub(crate) fn succeeded(&mut self, work: &W, again: Option<Duration>, now: Instant) {
        self.failures.remove(work);
        match again {
            Some(again) => drop(self.due.insert(work.clone(), now + again)),
            None => drop(self.due.remove(work)),
        }
    }

    /// The work failed; it is due again after a pause that grows.
    pub(crate) fn failed(&mut self, work: &W, now: Instant) {
        let failures = self.failures.entry(work.clone()).or_default();
        let pause = FIRST.saturating_mul(1 << (*failures).min(20)).min(LONGEST);
        *failures += 1;
        self.due.insert(work.clone(), now + pause);
    }

    /// When the next work is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Takes out the work that is due.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<W> {
        let due: Vec<W> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(work, _)| work.clone())
            .collect();
        for work in &due {
            self.due.remove(work);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let start = Instant::now();
        let mut retry = Retry::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            retry.failed(&"w", start);
            pauses.push(retry.next().unwrap() - start);
        }
        assert_eq!(pauses[..3], [50, 100, 200].map(Duration::from_millis));
        assert_eq!(*pauses.last().unwrap(), LONGEST);
        assert!(retry.take(start).is_empty());
        assert_eq!(retry.take(start + LONGEST), ["w"]);
        assert_eq!(retry.next(), None);
        retry.succeeded(&"w", Some(Duration::from_secs(1)), start);
        assert_eq!(retry.next(), Some(start + Duration::from_secs(1)));
        retry.failed(&"w", start);
        assert_eq!(retry.next(), Some(start + FIRST));
    }
}
