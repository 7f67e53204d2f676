//! When a pod is looked at again. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::between;
use crate::sync::Outcome;

const FINE: Duration = Duration::from_secs(60);
const WRONG: Duration = Duration::from_secs(10);
const NO_NETWORK: Duration = Duration::from_secs(1);

/// How long until the next sync without anything happening. `jitter` is in [0, 1): waits are up to half longer.
pub(crate) fn next(outcome: &Outcome, now: Timestamp, jitter: f64) -> Duration {
    let base = match outcome {
        Outcome::Fine | Outcome::Over => FINE,
        Outcome::Wrong { text, .. } if text.contains("network is not ready") => NO_NETWORK,
        Outcome::Wrong {
            until: Some(until), ..
        } => between(now, *until).min(FINE),
        Outcome::Wrong { .. } => WRONG,
    };
    base.mul_f64(1.0 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_by_outcome() {
        let now = Timestamp::from_second(1000).unwrap();
        let wrong = |text: &str, until: Option<i64>| Outcome::Wrong {
            text: text.into(),
            until: until.map(|second| Timestamp::from_second(second).unwrap()),
        };
        for (outcome, jitter, seconds) in [
            (Outcome::Fine, 0.0, 60),
            (Outcome::Fine, 0.5, 75),
            (wrong("ErrImagePull", None), 0.0, 10),
            (wrong("network is not ready: x", None), 0.0, 1),
            (wrong("CrashLoopBackOff", Some(1020)), 0.0, 20),
            (wrong("CrashLoopBackOff", Some(1300)), 0.0, 60),
            (wrong("CrashLoopBackOff", Some(900)), 0.0, 0),
        ] {
            assert_eq!(
                next(&outcome, now, jitter),
                Duration::from_secs(seconds),
                "{outcome:?}"
            );
        }
        assert!(next(&wrong("x", None), now, 0.999) < Duration::from_secs(15));
    }
}
