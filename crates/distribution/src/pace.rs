//! The least that a connection has to bring: one that trickles is left for another.

use std::time::Duration;

/// The least rate of a blob's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second, on average over [`Pace::over`]. 0 asks for nothing.
    pub least: u64,
    /// The time over which the average is taken. Only time that was spent waiting for the network counts: a reader that is slow, or limits
    /// its rate, is not the connection's fault.
    pub over: Duration,
}

impl Default for Pace {
    /// 1 KiB a second over 30 s: below that 100 MiB would take more than a day, while a poor link with several downloads stays above.
    fn default() -> Self {
        Self {
            least: 1 << 10,
            over: Duration::from_secs(30),
        }
    }
}

/// What a full stretch of time says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slow {
    /// So many bytes a second came, which is too little.
    Yes(u64),
    /// Enough came.
    No,
}

/// Watches one connection at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacer {
    pace: Pace,
    waited: Duration,
    bytes: u64,
}

impl Pacer {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Another connection.
    pub(crate) fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    /// Bytes came after a wait; says something each time that the stretch is full.
    pub(crate) fn came(&mut self, waited: Duration, bytes: u64) -> Option<Slow> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.pace.over {
            return None;
        }
        let millis = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        let rate = self.bytes.saturating_mul(1000) / millis.max(1);
        self.restart();
        Some(if rate < self.pace.least {
            Slow::Yes(rate)
        } else {
            Slow::No
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_that_was_waited_counts() {
        let mut pacer = Pacer::new(Pace {
            least: 1000,
            over: Duration::from_secs(2),
        });
        let secs = Duration::from_secs_f32;
        assert_eq!(pacer.came(secs(1.0), 100), None);
        assert_eq!(pacer.came(secs(1.0), 100), Some(Slow::Yes(100)));
        assert_eq!(pacer.came(secs(0.0), 1), None, "it begins anew");
        assert_eq!(pacer.came(secs(2.0), 2000), Some(Slow::No));
        assert_eq!(pacer.came(secs(1.9), 1), None);
        pacer.restart();
        assert_eq!(pacer.came(secs(0.2), 1), None);
        let mut patient = Pacer::new(Pace {
            least: 0,
            over: Duration::from_secs(2),
        });
        assert_eq!(patient.came(secs(60.0), 1), Some(Slow::No));
    }
}
