//! The rate that downloads together keep to.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that may come at once before the rate counts, as the time that they take.
const BURST: Duration = Duration::from_millis(100);

/// Lets bytes through at a rate.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: NonZeroU64,
    /// When what was let through so far would have come at the rate.
    due: Mutex<Option<Instant>>,
}

impl Limiter {
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        Self {
            rate,
            due: Mutex::default(),
        }
    }

    /// Waits until so many more bytes are within the rate.
    pub(crate) async fn pass(&self, bytes: usize) {
        let until = self.book(bytes, Instant::now());
        tokio::time::sleep_until(until).await;
    }

    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.rate;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used before is lost, except for a little.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begins = due.map_or(earliest, |due| due.max(earliest));
        let ends = begins + Duration::from_nanos(nanos);
        *due = Some(ends);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_together_and_a_pause_gives_little() {
        let limiter = Limiter::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now() + Duration::from_secs(60);
        let secs = Duration::from_secs;
        assert_eq!(limiter.book(1000, start), start + secs(1) - BURST);
        assert_eq!(limiter.book(2000, start), start + secs(3) - BURST);
        let later = start + secs(50);
        assert_eq!(limiter.book(1000, later), later + secs(1) - BURST);
    }
}
