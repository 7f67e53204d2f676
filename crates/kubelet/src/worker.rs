//! One pod's worker: one step after another, never two at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::agent::Agent;
use crate::sync::{self, Outcome, kill};
use crate::timing;
use crate::view;

/// The clock by which due pods are found: a pod is looked at on the next full tick after its time.
const TICK: Duration = Duration::from_secs(1);

/// What the worker is told of its pod.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone from the API.
    pub(crate) gone: bool,
}

/// How others reach a worker.
#[derive(Debug)]
pub(crate) struct Wake {
    notify: Notify,
    early: Mutex<Option<String>>,
    /// Ends a pull in flight.
    pub(crate) cancel: CancellationToken,
}

impl Wake {
    /// Nobody has called yet.
    pub(crate) fn new(cancel: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            notify: Notify::new(),
            early: Mutex::default(),
            cancel,
        })
    }

    /// Sync as soon as possible.
    pub(crate) fn now(&self) {
        self.notify.notify_one();
    }

    /// Sync as soon as possible, and pull although a back-off window is open.
    pub(crate) fn early(&self, why: String) {
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.now();
    }

    fn take_early(&self) -> Option<String> {
        self.early
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// What a worker works with.
pub(crate) struct Worker {
    pub(crate) agent: Arc<Agent>,
    pub(crate) told: watch::Receiver<Told>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) start: Instant,
    pub(crate) stop: CancellationToken,
}

/// Where the pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is to run.
    Running,
    /// Its containers are being ended.
    Ending,
    /// Its containers have ended; what is left is removed.
    Ended,
    /// Nothing is left to do until its object is deleted.
    Rests,
}

impl Worker {
    /// Works until nothing of the pod is left, or until `stop`.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = self.work() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn work(&mut self) {
        let mut stage = Stage::Running;
        // The first sync needs one listing of the runtime, later ones a listing newer than the last sync.
        let mut newer_than = self.start;
        loop {
            let told = self.told.borrow_and_update().clone();
            self.agent.pleg.newer(newer_than).await;
            let leaving = told.gone || told.pod.metadata.deletion_timestamp.is_some();
            if leaving && stage == Stage::Running {
                stage = Stage::Ending;
            }
            if leaving && stage == Stage::Rests {
                stage = Stage::Ended;
            }
            let (next, outcome) = self.step(stage, &told, leaving).await;
            newer_than = Instant::now();
            let error = matches!(outcome, Outcome::Wrong { .. });
            self.agent.metrics.synced(error);
            if let Outcome::Wrong { text, .. } = &outcome {
                debug!(
                    pod = view::full_name(&told.pod),
                    error = text,
                    "sync ended with an error"
                );
            }
            let Some(next) = next else { return };
            let at_once = next != stage;
            stage = next;
            if !at_once {
                self.wait(&outcome).await;
            }
        }
    }

    /// Does one step; the next stage, none when the pod is finished.
    async fn step(&self, stage: Stage, told: &Told, leaving: bool) -> (Option<Stage>, Outcome) {
        let (agent, pod) = (&self.agent, &told.pod);
        match stage {
            Stage::Running => {
                let early = self.wake.take_early();
                match sync::sync(agent, pod, early.as_deref(), &self.wake.cancel).await {
                    Outcome::Over => (Some(Stage::Ending), Outcome::Over),
                    outcome => (Some(stage), outcome),
                }
            }
            Stage::Ending => match kill::terminate(agent, pod).await {
                Ok(()) => (Some(Stage::Ended), Outcome::Over),
                Err(error) => (Some(stage), wrong(error.to_string())),
            },
            Stage::Ended => match kill::clean_up(agent, pod, leaving).await {
                Ok(()) if leaving => {
                    info!(pod = view::full_name(pod), "pod ended");
                    agent.forget(view::uid(pod));
                    if told.gone {
                        agent.status.forget(view::uid(pod));
                    }
                    (None, Outcome::Over)
                }
                Ok(()) => (Some(Stage::Rests), Outcome::Over),
                Err(text) => (Some(stage), wrong(text)),
            },
            Stage::Rests => (Some(stage), Outcome::Fine),
        }
    }

    async fn wait(&mut self, outcome: &Outcome) {
        let delay = timing::next(outcome, self.agent.clock.now(), fastrand::f64());
        let due = Instant::now() + delay;
        let since = due.duration_since(self.start);
        let ticks = since.as_nanos().div_ceil(TICK.as_nanos());
        let due = self.start + TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = self.wake.notify.notified() => {}
            changed = self.told.changed() => {
                if changed.is_err() {
                    // The owner is gone: the agent stops.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

fn wrong(text: String) -> Outcome {
    Outcome::Wrong { text, until: None }
}
