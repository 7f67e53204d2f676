//! What is remembered for a while, with a bound on how much.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Values that count until their time is over.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    most: usize,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    /// A memory for at most so many entries.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            entries: Mutex::default(),
        }
    }

    /// What is remembered of a key.
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = entries.get(key)?;
        (now < *until).then(|| value.clone())
    }

    /// What was remembered of a key, also after its time.
    pub(crate) fn old(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).map(|(value, _)| value.clone())
    }

    /// Remembers a value for a time. When the memory is full it forgets what is over, or else everything.
    pub(crate) fn put(&self, key: K, value: V, now: Instant, time: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() >= self.most {
            entries.clear();
        }
        entries.insert(key, (value, now + time));
    }

    /// Forgets a key.
    pub(crate) fn forget(&self, key: &K) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_in_time_and_stays_small() {
        let memory = Memory::new(2);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        memory.put("a", 1, now, second);
        memory.put("b", 2, now, 5 * second);
        assert_eq!(memory.get(&"a", now), Some(1));
        assert_eq!(memory.get(&"a", now + second), None);
        assert_eq!(memory.old(&"a"), Some(1));
        memory.put("c", 3, now + 2 * second, second);
        assert_eq!(memory.old(&"a"), None);
        assert_eq!(memory.get(&"b", now + 2 * second), Some(2));
        memory.put("d", 4, now + 2 * second, second);
        assert_eq!(memory.get(&"b", now + 2 * second), None);
        memory.forget(&"d");
        assert_eq!(memory.old(&"d"), None);
    }
}
