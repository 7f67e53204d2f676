//! Back-off windows of image pulls and of container restarts. Pure: the clock is an argument.
//!
//! Both double from 10 s to 300 s. They differ in what opens a window and from when it counts: a pull's window counts
//! from the failure, a restart's from the end of the container; and the first restart waits for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First window of both.
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest window of both.
pub const MAX: Duration = Duration::from_secs(300);
/// An entry that was not touched for longer starts again at the first window.
pub const EXPIRY: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Window {
    length: Duration,
    updated: Timestamp,
    failures: u32,
}

impl Window {
    fn end_since(self, start: Timestamp) -> Timestamp {
        start
            .saturating_add(signed(self.length))
            .unwrap_or(Timestamp::MAX)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// The windows by key; doubling and expiry.
#[derive(Clone, Debug)]
struct Windows {
    initial: Duration,
    max: Duration,
    by_key: BTreeMap<String, Window>,
}

impl Windows {
    fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial: initial.min(max),
            max,
            by_key: BTreeMap::new(),
        }
    }

    /// The entry unless it is expired at `event`.
    fn live(&self, key: &str, event: Timestamp) -> Option<Window> {
        let window = self.by_key.get(key)?;
        (event.duration_since(window.updated) <= signed(EXPIRY)).then_some(*window)
    }

    fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) -> Window {
        let window = match self.live(key, event) {
            Some(old) => Window {
                length: (old.length * 2).min(self.max),
                updated: now,
                failures: old.failures.saturating_add(1),
            },
            None => Window {
                length: self.initial,
                updated: now,
                failures: 1,
            },
        };
        self.by_key.insert(key.to_owned(), window);
        window
    }

    fn collect(&mut self, now: Timestamp) {
        self.by_key
            .retain(|_, window| now.duration_since(window.updated) <= signed(EXPIRY));
    }
}

/// The key of a pod's image: `<uid>_<image as written in the pod>`.
pub fn image_key(pod_uid: &str, image: &str) -> String {
    format!("{pod_uid}_{image}")
}

/// Back-off of image pulls, with the remembered error of each key.
#[derive(Clone, Debug)]
pub struct ImageBackoff {
    windows: Windows,
    remembered: BTreeMap<String, String>,
}

impl Default for ImageBackoff {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBackoff {
    /// The kubelet's windows: 10 s to 300 s.
    pub fn new() -> Self {
        Self {
            windows: Windows::new(INITIAL, MAX),
            remembered: BTreeMap::new(),
        }
    }

    /// The end of the window when one is open at `now`: no attempt may start before it.
    pub fn open_until(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let window = self.windows.live(key, now)?;
        Some(window.end_since(window.updated)).filter(|end| now < *end)
    }

    /// The end of the last window, open or not: the earliest time of the next attempt.
    pub fn next_attempt(&self, key: &str) -> Option<Timestamp> {
        self.windows
            .by_key
            .get(key)
            .map(|window| window.end_since(window.updated))
    }

    /// An attempt starts: its predecessor's error is forgotten, the count is not.
    pub fn started(&mut self, key: &str) {
        self.remembered.remove(key);
    }

    /// An attempt failed at `now`; opens the window and remembers `<reason>: <message>` for the waiting message.
    pub fn failed(&mut self, key: &str, reason: &str, message: &str, now: Timestamp) -> Timestamp {
        let window = self.windows.next(key, now, now);
        self.remembered
            .insert(key.to_owned(), format!("{reason}: {message}"));
        window.end_since(now)
    }

    /// An attempt succeeded. The entry stays (a failure within ten minutes goes on doubling); expired ones are dropped.
    pub fn succeeded(&mut self, now: Timestamp) {
        self.windows.collect(now);
        let windows = &self.windows.by_key;
        self.remembered.retain(|key, _| windows.contains_key(key));
    }

    /// The remembered error: `<reason>: <message>` of the last failed attempt.
    pub fn remembered(&self, key: &str) -> Option<&str> {
        self.remembered.get(key).map(String::as_str)
    }

    /// Failures in a row as far as the entry remembers them.
    pub fn failures(&self, key: &str) -> u32 {
        self.windows
            .by_key
            .get(key)
            .map_or(0, |window| window.failures)
    }

    /// Lets the next attempt start now although its window is open; count and length stay, so the next failure waits as
    /// long as it would have.
    pub fn open_now(&mut self, key: &str, now: Timestamp) {
        if let Some(window) = self.windows.by_key.get_mut(key) {
            let past = now
                .saturating_sub(signed(window.length))
                .unwrap_or(Timestamp::MIN);
            window.updated = window.updated.min(past);
        }
    }

    /// Forgets every key of a pod that is gone.
    pub fn forget_pod(&mut self, pod_uid: &str) {
        let prefix = format!("{pod_uid}_");
        self.windows
            .by_key
            .retain(|key, _| !key.starts_with(&prefix));
        self.remembered.retain(|key, _| !key.starts_with(&prefix));
    }
}

/// What to do with a container that ended and is to be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it; the next window is now open for its next end.
    Now,
    /// Wait: state `CrashLoopBackOff`.
    Wait {
        /// The window as it is named in the message.
        window: Duration,
        /// When it ends.
        until: Timestamp,
    },
}

/// Back-off of container restarts.
#[derive(Clone, Debug)]
pub struct CrashBackoff {
    windows: Windows,
}

impl Default for CrashBackoff {
    fn default() -> Self {
        Self::new(MAX)
    }
}

impl CrashBackoff {
    /// Windows up to `max` (the node's `crashLoopBackOff.maxContainerRestartPeriod`, 1 s to 300 s); a smaller one than
    /// 10 s is also the first window.
    pub fn new(max: Duration) -> Self {
        Self {
            windows: Windows::new(INITIAL, max),
        }
    }

    /// Decides at `now` about a container that ended at `finished`. [`Restart::Now`] counts as the start.
    pub fn restart(&mut self, key: &str, finished: Timestamp, now: Timestamp) -> Restart {
        if let Some(window) = self.windows.live(key, finished) {
            let until = window.end_since(finished);
            if now < until {
                return Restart::Wait {
                    window: window.length,
                    until,
                };
            }
        }
        self.windows.next(key, finished, now);
        Restart::Now
    }

    /// Forgets a container that is gone.
    pub fn forget(&mut self, key: &str) {
        self.windows.by_key.remove(key);
    }

    /// Drops expired entries.
    pub fn collect(&mut self, now: Timestamp) {
        self.windows.collect(now);
    }
}

/// The key of a container's restarts; a changed image starts afresh.
pub fn crash_key(pod_uid: &str, container: &str, image: &str) -> String {
    format!("{pod_uid}_{container}_{image}")
}

/// The waiting message of `CrashLoopBackOff`; `pod` is [`crate::text::pod`].
pub fn crash_message(window: Duration, container: &str, pod: &str) -> String {
    format!(
        "back-off {} restarting failed container={container} pod={pod}",
        crate::duration::go(window)
    )
}

/// The Warning event `BackOff` of a restart; `pod` is [`crate::text::pod`].
pub fn crash_event(container: &str, pod: &str) -> String {
    format!("Back-off restarting failed container {container} in pod {pod}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn windows_double_to_five_minutes() {
        let mut backoff = ImageBackoff::new();
        let key = image_key("uid", "nginx");
        assert_eq!(key, "uid_nginx");
        let mut now = 0;
        for (attempt, window) in [10, 20, 40, 80, 160, 300, 300, 300].into_iter().enumerate() {
            assert_eq!(backoff.open_until(&key, at(now)), None, "attempt {attempt}");
            backoff.started(&key);
            assert_eq!(backoff.remembered(&key), None);
            assert_eq!(
                backoff.failed(&key, "ErrImagePull", "not found", at(now)),
                at(now + window)
            );
            assert_eq!(backoff.remembered(&key), Some("ErrImagePull: not found"));
            assert_eq!(
                backoff.open_until(&key, at(now + window - 1)),
                Some(at(now + window))
            );
            assert_eq!(backoff.failures(&key), u32::try_from(attempt).unwrap() + 1);
            now += window;
        }
    }

    #[test]
    fn success_keeps_the_count_and_ten_minutes_reset_it() {
        let mut backoff = ImageBackoff::new();
        backoff.failed("k", "r", "m", at(0));
        backoff.succeeded(at(15));
        assert_eq!(backoff.failed("k", "r", "m", at(20)), at(40));
        // Exactly ten minutes later it still doubles, one second more and it starts again.
        assert_eq!(backoff.failed("k", "r", "m", at(620)), at(660));
        assert_eq!(backoff.failed("k", "r", "m", at(1221)), at(1231));
        backoff.succeeded(at(3000));
        assert_eq!(backoff.failures("k"), 0);
        assert_eq!(backoff.remembered("k"), None);
    }

    #[test]
    fn an_early_attempt_leaves_the_count_as_it_is() {
        let mut backoff = ImageBackoff::new();
        for now in [0, 10, 30] {
            backoff.failed("k", "r", "m", at(now));
        }
        assert!(backoff.open_until("k", at(31)).is_some());
        backoff.open_now("k", at(31));
        assert_eq!(backoff.open_until("k", at(31)), None);
        assert_eq!(backoff.failed("k", "r", "m", at(32)), at(32 + 80));
        backoff.open_now("other", at(33));
        assert_eq!(backoff.failures("other"), 0);
    }

    #[test]
    fn other_images_and_pods_have_windows_of_their_own() {
        let mut backoff = ImageBackoff::new();
        backoff.failed(&image_key("a", "nginx"), "r", "m", at(0));
        for other in [image_key("a", "nginx:latest"), image_key("b", "nginx")] {
            assert_eq!(backoff.open_until(&other, at(1)), None);
        }
        backoff.forget_pod("a");
        assert_eq!(backoff.open_until(&image_key("a", "nginx"), at(1)), None);
    }

    #[test]
    fn the_first_restart_is_at_once_then_windows_count_from_the_end() {
        let mut backoff = CrashBackoff::default();
        let mut finished = 0;
        for window in [0, 10, 20, 40, 80, 160, 300, 300] {
            if window > 0 {
                let wait = Restart::Wait {
                    window: Duration::from_secs(window),
                    until: at(finished + i64::try_from(window).unwrap()),
                };
                assert_eq!(backoff.restart("k", at(finished), at(finished)), wait);
            }
            let now = finished + i64::try_from(window).unwrap();
            assert_eq!(
                backoff.restart("k", at(finished), at(now)),
                Restart::Now,
                "{window}"
            );
            finished = now + 1;
        }
    }

    #[test]
    fn a_container_that_ran_ten_minutes_starts_afresh() {
        let mut backoff = CrashBackoff::default();
        for (finished, now) in [(0, 0), (1, 11), (12, 32)] {
            assert_eq!(backoff.restart("k", at(finished), at(now)), Restart::Now);
        }
        assert_eq!(backoff.restart("k", at(700), at(700)), Restart::Now);
        assert!(matches!(
            backoff.restart("k", at(701), at(701)),
            Restart::Wait {
                window: INITIAL,
                ..
            }
        ));
    }

    #[test]
    fn a_small_cap_lowers_the_first_window() {
        let mut backoff = CrashBackoff::new(Duration::from_secs(3));
        assert_eq!(backoff.restart("k", at(0), at(0)), Restart::Now);
        let wait = Restart::Wait {
            window: Duration::from_secs(3),
            until: at(4),
        };
        assert_eq!(backoff.restart("k", at(1), at(1)), wait);
    }

    #[test]
    fn texts_are_the_kubelets() {
        let pod = crate::text::pod("p", "ns", "uid");
        assert_eq!(
            crash_message(Duration::from_secs(80), "c", &pod),
            "back-off 1m20s restarting failed container=c pod=p_ns(uid)"
        );
        assert_eq!(
            crash_event("c", &pod),
            "Back-off restarting failed container c in pod p_ns(uid)"
        );
    }
}
