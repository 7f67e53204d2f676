//! What this process knows of its endpoints: which of them lately gave no answer, and for how long they come last.
//!
//! A place that cannot be reached costs one attempt, not one for every blob. It is never left out: where nothing else answers, it is
//! asked again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a place that gave no answer comes last; doubled each time it happens again, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(240);
const MOST_KEPT: usize = 1000;
/// Nobody waits longer than this for a connection while another place could be asked.
pub(crate) const HEDGE: Duration = Duration::from_secs(1);
const LONGEST_HEDGE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    until: Option<Instant>,
    times: u32,
    /// How long the last connection took to open.
    opened: Option<Duration>,
}

/// The memory, by scheme, host and port.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<String, State>>);

impl Health {
    /// Whether a place comes last now.
    pub(crate) fn is_down(&self, place: &str, now: Instant) -> bool {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states
            .get(place)
            .and_then(|state| state.until)
            .is_some_and(|until| now < until)
    }

    /// A place gave no answer.
    pub(crate) fn down(&self, place: &str, now: Instant) {
        self.change(place, |state| {
            // Several requests that met the same silence count once.
            if state.until.is_some_and(|until| now < until) {
                return;
            }
            let rest = FIRST.saturating_mul(1 << state.times.min(8)).min(LONGEST);
            state.times += 1;
            state.until = Some(now + rest);
        });
    }

    /// A place asks to be left alone for some time.
    pub(crate) fn busy(&self, place: &str, wait: Duration, now: Instant) {
        self.change(place, |state| state.until = Some(now + wait.min(LONGEST)));
    }

    /// A place answers.
    pub(crate) fn up(&self, place: &str) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get_mut(place) {
            state.until = None;
            state.times = 0;
        }
    }

    /// A connection was opened, and how long that took.
    pub(crate) fn opened(&self, place: &str, took: Duration) {
        self.change(place, |state| {
            *state = State {
                opened: Some(took),
                ..State::default()
            };
        });
    }

    /// How long to wait for a connection before the next place is asked: a far one that answers is not given up for being far.
    pub(crate) fn hedge(&self, place: &str) -> Duration {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = states.get(place).and_then(|state| state.opened);
        usual.map_or(HEDGE, |took| (took * 3).clamp(HEDGE, LONGEST_HEDGE))
    }

    fn change(&self, place: &str, change: impl FnOnce(&mut State)) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= MOST_KEPT && !states.contains_key(place) {
            states.clear();
        }
        change(states.entry(place.to_owned()).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_place_comes_last_for_longer_each_time() {
        let health = Health::default();
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        assert!(!health.is_down("m", start));
        health.down("m", start);
        health.down("m", after(1));
        assert!(health.is_down("m", after(14)) && !health.is_down("m", after(16)));
        health.down("m", after(20));
        assert!(health.is_down("m", after(49)) && !health.is_down("m", after(51)));
        health.up("m");
        assert!(!health.is_down("m", after(21)));
        health.busy("m", Duration::from_secs(3), start);
        assert!(health.is_down("m", after(2)) && !health.is_down("m", after(4)));
    }

    #[test]
    fn a_far_place_is_waited_for_by_what_it_usually_takes() {
        let health = Health::default();
        assert_eq!(health.hedge("far"), HEDGE);
        health.opened("far", Duration::from_millis(900));
        assert_eq!(health.hedge("far"), Duration::from_millis(2700));
        health.opened("far", Duration::from_secs(9));
        assert_eq!(health.hedge("far"), LONGEST_HEDGE);
        health.opened("far", Duration::from_millis(3));
        assert_eq!(health.hedge("far"), HEDGE);
    }
}
