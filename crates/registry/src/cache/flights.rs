//! One at a time for each key: whoever comes second finds what the first one brought.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks from which on those that nobody holds are looked for.
const MANY: usize = 1000;

type Locks = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// The keys that somebody works on.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<Locks>);

/// The right to work on a key.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Locks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on the key.
    pub(crate) async fn enter(&self, key: String) -> Flight<'_> {
        let own = {
            let mut locks = self.lock();
            // Somebody who left while waiting, as the last one, left a lock behind.
            if locks.len() >= MANY {
                locks.retain(|_, own| Arc::strong_count(own) > 1);
            }
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        let guard = own.lock_owned().await;
        Flight {
            flights: self,
            key,
            guard: Some(guard),
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut locks = self.flights.lock();
        // Those who wait hold the lock too; the last one takes the key out.
        self.guard = None;
        if locks
            .get(&self.key)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_works_and_the_others_wait() {
        let flights = Flights::default();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = async || {
            let _flight = flights.enter("k".to_owned()).await;
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        futures::future::join_all((0..10).map(|_| work())).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
        assert!(flights.lock().is_empty());
        // One who leaves while waiting leaves nothing behind.
        let held = flights.enter("k".to_owned()).await;
        let waiting = flights.enter("k".to_owned());
        assert!(futures::FutureExt::now_or_never(waiting).is_none());
        drop(held);
        assert!(flights.lock().is_empty());
    }
}
