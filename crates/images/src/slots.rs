//! How many layers of a pull are unpacked at the same time, and whether more should come than are.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Layers that are all here and wait to be unpacked from which on no further one is asked for: then it is not the network that is waited for.
const BEHIND: usize = 2;

/// So many layers at a time are unpacked; the others wait. Layers go by their number in the image.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Mutex<State>,
    freed: Condvar,
    moved: Notify,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Who waits, and whether all of it is here.
    waiting: HashMap<usize, bool>,
}

impl State {
    fn is_behind(&self) -> bool {
        self.waiting.values().filter(|whole| **whole).count() >= BEHIND
    }
}

/// One of the slots, until dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(slots: usize) -> Self {
        let state = State {
            free: slots.max(1),
            waiting: HashMap::new(),
        };
        Self {
            state: Mutex::new(state),
            freed: Condvar::new(),
            moved: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot. Blocks.
    pub(crate) fn wait(&self, layer: usize) -> Slot<'_> {
        let mut state = self.lock();
        if state.free == 0 {
            state.waiting.insert(layer, false);
            let waited = self.freed.wait_while(state, |state| state.free == 0);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.waiting.remove(&layer);
            self.moved.notify_waiters();
        }
        state.free -= 1;
        Slot(self)
    }

    /// All of this layer is here.
    pub(crate) fn whole(&self, layer: usize) {
        if let Some(whole) = self.lock().waiting.get_mut(&layer) {
            *whole = true;
        }
    }

    /// Waits until the slots keep up with what comes.
    pub(crate) async fn keep_up(&self) {
        loop {
            // Before the look: what moves in between is not missed.
            let moved = self.moved.notified();
            if !self.lock().is_behind() {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_than_there_are_slots_go_on() {
        let slots = Slots::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for layer in 0..8 {
                let (slots, inside, most) = (&slots, &inside, &most);
                scope.spawn(move || {
                    let _slot = slots.wait(layer);
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_is_asked_for_while_whole_layers_wait() {
        let slots = std::sync::Arc::new(Slots::new(1));
        let first = slots.wait(0);
        slots.keep_up().await;
        let waiting: Vec<_> = (1..4)
            .map(|layer| {
                let slots = slots.clone();
                std::thread::spawn(move || drop(slots.wait(layer)))
            })
            .collect();
        while slots.lock().waiting.len() < 3 {
            tokio::task::yield_now().await;
        }
        slots.keep_up().await;
        slots.whole(1);
        slots.keep_up().await;
        slots.whole(2);
        let mut behind = Box::pin(slots.keep_up());
        assert!(futures::poll!(&mut behind).is_pending());
        drop(first);
        behind.await;
        for thread in waiting {
            thread.join().unwrap();
        }
        assert_eq!(slots.lock().free, 1);
    }
}
