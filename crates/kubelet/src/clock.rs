//! The time of day as the node agent sees it, replaceable so that hours pass in a test's milliseconds.

use std::time::Duration;

use jiff::Timestamp;

/// Tells the time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Copy, Default)]
enum Source {
    #[default]
    System,
    Virtual {
        start: Timestamp,
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and moves with tokio's timers, so that a paused runtime controls both.
    pub fn follow_tokio(start: Timestamp) -> Self {
        Self(Source::Virtual {
            start,
            since: tokio::time::Instant::now(),
        })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => Timestamp::now(),
            Source::Virtual { start, since } => {
                start.checked_add(since.elapsed()).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// `from` to `to`, zero where `to` is earlier.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// `time` plus `wait`, at most the end of time.
pub(crate) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_moves_with_paused_time() {
        let clock = Clock::follow_tokio(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), Timestamp::from_second(3600).unwrap());
        assert_eq!(between(clock.now(), Timestamp::UNIX_EPOCH), Duration::ZERO);
    }
}
