//! One `syncfs` for everybody who waits for one.

use std::sync::{Condvar, Mutex, PoisonError};

/// Makes what was written before each call durable, with as few syncs as that takes: whoever comes while one runs waits for the next, and
/// shares it with all that have come by then.
#[derive(Debug, Default)]
pub(crate) struct Syncer {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Syncs that have begun.
    begun: u64,
    /// The last sync that ended well.
    done: u64,
    running: bool,
}

impl Syncer {
    /// Returns when a sync that began after this call has ended well, or with the error of one that this call ran.
    pub(crate) fn sync<E>(&self, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // One that runs already may have passed by what this caller wrote.
        let needed = state.begun + 1;
        while state.running && state.done < needed {
            let waited = self.ended.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.done >= needed {
            return Ok(());
        }
        state.running = true;
        state.begun += 1;
        let number = state.begun;
        drop(state);
        let result = sync();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        if result.is_ok() {
            state.done = number;
        }
        drop(state);
        self.ended.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn those_who_come_meanwhile_share_the_next_one() {
        let syncer = Syncer::default();
        let syncs = AtomicU64::new(0);
        let (entered, has_entered) = channel();
        let (release, released) = channel::<()>();
        std::thread::scope(|scope| {
            let (syncer, syncs) = (&syncer, &syncs);
            scope.spawn(move || {
                syncer.sync(|| {
                    syncs.fetch_add(1, Ordering::SeqCst);
                    entered.send(()).unwrap();
                    released.recv().unwrap();
                    Ok::<_, Infallible>(())
                })
            });
            has_entered.recv().unwrap();
            let late: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        syncer.sync(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            // Time for the others to come; they may come later too and then sync again.
                            std::thread::sleep(std::time::Duration::from_millis(50));
                            Ok::<_, Infallible>(())
                        })
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert_eq!(syncs.load(Ordering::SeqCst), 1, "they wait");
            release.send(()).unwrap();
            for thread in late {
                thread.join().unwrap().unwrap();
            }
        });
        let syncs = syncs.load(Ordering::SeqCst);
        assert!((2..9).contains(&syncs), "nobody shared: {syncs}");
    }

    #[test]
    fn an_error_is_its_own_callers_alone() {
        let syncer = Syncer::default();
        assert_eq!(syncer.sync(|| Err("disk")), Err("disk"));
        assert_eq!(syncer.sync(|| Ok::<_, &str>(())), Ok(()));
    }
}
