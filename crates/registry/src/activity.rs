//! Connections on which nothing happens end, so that none of the few there are is held for nothing: one whose client says nothing, and
//! one whose client takes nothing of its answer. What this registry itself takes its time for ends none.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

/// What happens on one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    /// When something happened last, in milliseconds after that.
    moved: AtomicU64,
    /// Requests whose answer is not over.
    open: AtomicUsize,
    /// Those of them whose next byte is this registry's to give.
    ours: AtomicUsize,
}

/// A request until its answer is over, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Turn {
    activity: Arc<Activity>,
    is_ours: bool,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            ours: AtomicUsize::new(0),
        })
    }

    /// Something happened: bytes were written, for one. What is read is nothing: a client may send anything for ever.
    pub(crate) fn touch(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, SeqCst);
    }

    /// A request came: it is this registry's turn.
    pub(crate) fn request(self: &Arc<Self>) -> Turn {
        self.open.fetch_add(1, SeqCst);
        self.ours.fetch_add(1, SeqCst);
        self.touch();
        Turn {
            activity: Arc::clone(self),
            is_ours: true,
        }
    }

    /// Waits until nothing happened for too long: `idle` where no answer is open, `stalled` where the client takes nothing of one.
    pub(crate) async fn quiet(&self, idle: Duration, stalled: Duration) {
        loop {
            // First: whoever makes it the client's turn says before that something happened.
            let is_ours = self.ours.load(SeqCst) > 0;
            let is_open = self.open.load(SeqCst) > 0;
            let patience = if is_open { stalled } else { idle };
            let moved = self.began + Duration::from_millis(self.moved.load(SeqCst));
            let left = patience.saturating_sub(moved.elapsed());
            match (is_ours, left.is_zero()) {
                (false, true) => return,
                (false, false) => tokio::time::sleep(left).await,
                // Whatever comes next is something that happens.
                (true, _) => tokio::time::sleep(patience.max(Duration::from_millis(10))).await,
            }
        }
    }
}

impl Turn {
    /// Whose turn it is: this registry's to give the next byte, or the client's to take what was given.
    pub(crate) fn give(&mut self, is_ours: bool) {
        if self.is_ours == is_ours {
            return;
        }
        self.is_ours = is_ours;
        self.activity.touch();
        if is_ours {
            self.activity.ours.fetch_add(1, SeqCst);
        } else {
            self.activity.ours.fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give(false);
        self.activity.touch();
        self.activity.open.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is quiet at once.
    async fn is_quiet(activity: &Activity) -> bool {
        let (idle, stalled) = (Duration::ZERO, Duration::ZERO);
        let quiet = activity.quiet(idle, stalled);
        tokio::time::timeout(Duration::from_millis(100), quiet)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn what_we_take_our_time_for_is_not_quiet() {
        let activity = Activity::new();
        assert!(is_quiet(&activity).await, "nothing was asked");
        let mut turn = activity.request();
        assert!(!is_quiet(&activity).await, "it is answered");
        turn.give(false);
        assert!(is_quiet(&activity).await, "the client takes nothing");
        turn.give(true);
        let other = activity.request();
        drop(turn);
        assert!(!is_quiet(&activity).await, "another one is answered");
        drop(other);
        assert!(is_quiet(&activity).await, "all are answered");
        let long = Duration::from_secs(600);
        let quiet = activity.quiet(long, Duration::ZERO);
        let waited = tokio::time::timeout(Duration::from_millis(100), quiet).await;
        assert!(waited.is_err(), "it may be idle for longer");
    }
}
