//! A token bucket that answers yes or no and never waits.

use jiff::Timestamp;

/// `burst` tokens, refilled at `rate` a second.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    last: Option<Timestamp>,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: f64, burst: u32) -> Self {
        Self {
            rate,
            burst: f64::from(burst),
            tokens: f64::from(burst),
            last: None,
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn accept(&mut self, now: Timestamp) -> bool {
        if let Some(last) = self.last {
            let passed = crate::clock::between(last, now).as_secs_f64();
            self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        }
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_period() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut bucket = Bucket::new(1.0 / 300.0, 25);
        assert_eq!((0..100).filter(|_| bucket.accept(at(0))).count(), 25);
        assert!(!bucket.accept(at(299)));
        assert!(bucket.accept(at(301)));
        assert!(!bucket.accept(at(301)));
    }
}
