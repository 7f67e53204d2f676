//! One pull for many waiters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use towline_cause::{Cause, Failure, Step};
use towline_keyring::Credential;
use towline_oci::Platform;
use towline_sys::task::CancellationToken;

use crate::failure::{copy, given_up};
use crate::{Image, Phase, Progress};

/// What makes two pulls the same. The credential is part of it: nobody gets an image through somebody else's login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) image: String,
    pub(crate) credential: Credential,
    pub(crate) platform: Platform,
}

type Outcome = Option<Result<Image, Arc<Failure>>>;

/// The pulls that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flights(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    flights: Mutex<Vec<Flight>>,
    next: AtomicU64,
    /// Tasks that have not ended yet, those that nobody waits for any more included.
    running: watch::Sender<usize>,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    key: Key,
    waiters: usize,
    cancel: CancellationToken,
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Outcome>,
}

/// What a pull's task holds while it runs.
pub(crate) struct Running {
    flights: Flights,
    number: u64,
    outcome: watch::Sender<Outcome>,
    /// Where it reports.
    pub(crate) progress: watch::Sender<Progress>,
    /// Cancelled when the last waiter has left.
    pub(crate) cancel: CancellationToken,
}

/// One waiter. Dropped, it leaves; with the last the pull is cancelled.
pub(crate) struct Waiter {
    flights: Flights,
    number: u64,
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Outcome>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Vec<Flight>> {
        self.0
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the pull with this key, or begins one: then the second answer is there, for the task to be started.
    pub(crate) fn join(&self, key: Key) -> (Waiter, Option<Running>) {
        let mut flights = self.lock();
        if let Some(flight) = flights.iter_mut().find(|flight| flight.key == key) {
            flight.waiters += 1;
            return (self.waiter(flight), None);
        }
        let (progress, progress_seen) = watch::channel(Progress::default());
        let (outcome, outcome_seen) = watch::channel(None);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.running.send_modify(|running| *running += 1);
        let flight = Flight {
            number,
            key,
            waiters: 1,
            cancel: CancellationToken::new(),
            progress: progress_seen,
            outcome: outcome_seen,
        };
        let running = Running {
            flights: self.clone(),
            number,
            outcome,
            progress,
            cancel: flight.cancel.clone(),
        };
        let waiter = self.waiter(&flight);
        flights.push(flight);
        (waiter, Some(running))
    }

    fn waiter(&self, flight: &Flight) -> Waiter {
        Waiter {
            flights: self.clone(),
            number: flight.number,
            progress: flight.progress.clone(),
            outcome: flight.outcome.clone(),
        }
    }

    /// How far each pull is that somebody waits for, by its image's name.
    pub(crate) fn running(&self) -> Vec<(String, Progress)> {
        let flights = self.lock();
        let told = |flight: &Flight| (flight.key.image.clone(), flight.progress.borrow().clone());
        flights.iter().map(told).collect()
    }

    /// Cancels every pull and waits until they have ended.
    pub(crate) async fn stop(&self) {
        for flight in self.lock().iter() {
            flight.cancel.cancel();
        }
        // The sender is in self, so that the wait cannot fail.
        self.0
            .running
            .subscribe()
            .wait_for(|running| *running == 0)
            .await
            .ok();
    }
}

impl Running {
    /// Tells every waiter.
    pub(crate) fn land(self, result: Result<Image, Failure>) {
        if result.is_ok() {
            self.progress
                .send_modify(|progress| progress.phase = Phase::Done);
        }
        // Out of the list first: who comes now begins anew and sees what this one recorded.
        self.leave_list();
        self.outcome.send_replace(Some(result.map_err(Arc::new)));
    }

    fn leave_list(&self) {
        self.flights
            .lock()
            .retain(|flight| flight.number != self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.leave_list();
        self.flights.0.running.send_modify(|running| *running -= 1);
    }
}

impl Waiter {
    /// Waits for the pull's end, or for `cancel`; passes progress on meanwhile.
    pub(crate) async fn wait(
        mut self,
        cancel: CancellationToken,
        report: Option<watch::Sender<Progress>>,
    ) -> Result<Image, Failure> {
        let mut outcome = self.outcome.clone();
        loop {
            if let Some(report) = &report {
                report.send_replace(self.progress.borrow_and_update().clone());
            }
            let moved = async {
                // The pull's task is gone: its outcome is next.
                if report.is_none() || self.progress.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                landed = outcome.wait_for(Option::is_some) => {
                    let result = landed.ok().and_then(|outcome| outcome.clone());
                    if let Some(report) = &report {
                        report.send_replace(self.progress.borrow().clone());
                    }
                    return result.map_or_else(
                        || Err(lost()),
                        |result| result.map_err(|failure| copy(&failure)),
                    );
                }
                () = cancel.cancelled() => {
                    let progress = self.progress.borrow();
                    let (bytes, total) = progress.bytes();
                    let step = if progress.phase == Phase::Resolving { Step::Resolve } else { Step::Fetch };
                    return Err(given_up(step, bytes, total));
                }
                () = moved => {}
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let Some(at) = flights
            .iter()
            .position(|flight| flight.number == self.number)
        else {
            return;
        };
        flights[at].waiters -= 1;
        if flights[at].waiters == 0 {
            flights.swap_remove(at).cancel.cancel();
        }
    }
}

fn lost() -> Failure {
    Failure::new(
        Cause::Unknown,
        Step::Fetch,
        "the pull ended without a result",
    )
}
