//! Tasks that mean something: each has a name, and says what its end means.
//!
//! A component spawns its long-lived tasks in a [`Supervisor`]; short-lived
//! tasks of library code use [`spawn`]. Shutdown goes stage by stage with one
//! deadline, and names the tasks that did not end.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that calls tokio::spawn"
)]

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
pub use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Spawns a task of library code: it runs in a span with its name, and its
/// owner keeps the handle. A panic is in the handle's result.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// Runs blocking work on the threads kept for that. A panic of the work goes
/// on in the caller; that the runtime ends is reported as a panic too, since
/// then nobody is left to answer.
pub async fn blocking<T, F>(name: &'static str, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let span = tracing::debug_span!("blocking", name);
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("blocking work {name} was dropped: {error}"),
        },
    }
}

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The component cannot go on without it: its end, error or panic before
    /// shutdown was asked for starts the shutdown, with that as the reason.
    Critical,
    /// Its end is normal; an error or panic is logged.
    Background,
}

/// Why a shutdown began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked: [`Supervisor::shutdown`].
    Requested(String),
    /// A critical task ended; `how` is `ended`, its error, or its panic.
    TaskEnded {
        /// The task's name.
        task: String,
        /// How it ended.
        how: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested(why) => f.write_str(why),
            Self::TaskEnded { task, how } => write!(f, "task {task} {how}"),
        }
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it began.
    pub reason: Reason,
    /// Names of the tasks that were still running at the deadline; they were
    /// aborted.
    pub unfinished: Vec<String>,
}

/// What a supervised task may return.
pub trait TaskResult {
    /// The error in words, with its causes; `None` when all went well.
    fn error(self) -> Option<String>;
}

impl TaskResult for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: std::error::Error> TaskResult for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|error| chain(&error))
    }
}

/// An error with its causes in one line, `outer: inner: innermost`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Runs the tasks of a component and stops them in order. Cheap to clone: all
/// clones are the same supervisor.
///
/// Tasks are in stages, 0 first to stop. The token of stage 0 is cancelled at
/// once when shutdown begins; that of each later stage when the tasks of the
/// earlier ones have ended (or the deadline has passed) in
/// [`finish`](Self::finish).
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    reason: watch::Sender<Option<Reason>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stages: Vec<Stage>,
}

#[derive(Default)]
struct Stage {
    token: CancellationToken,
    tasks: Vec<(String, JoinHandle<()>)>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                reason: watch::Sender::new(None),
                state: Mutex::default(),
            }),
        }
    }

    /// The token of stage 0, cancelled as soon as shutdown begins.
    pub fn token(&self) -> CancellationToken {
        self.stage_token(0)
    }

    /// The token that tells the tasks of `stage` to end.
    pub fn stage_token(&self, stage: u8) -> CancellationToken {
        self.stage(&mut self.state(), stage).token.clone()
    }

    /// Spawns a task in stage 0. The future must end soon after
    /// [`token`](Self::token) is cancelled.
    pub fn spawn<F>(&self, name: impl Into<String>, kind: Kind, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskResult + Send,
    {
        self.spawn_in(0, name, kind, future);
    }

    /// Spawns a task in a stage. The future must end soon after the stage's
    /// token is cancelled. A task spawned into a stage that was already told
    /// to end is still run: it sees a cancelled token.
    pub fn spawn_in<F>(&self, stage: u8, name: impl Into<String>, kind: Kind, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskResult + Send,
    {
        let name = name.into();
        let span = tracing::info_span!("task", name = %name);
        // The task must not keep the supervisor alive, which keeps its handle.
        let inner = Arc::downgrade(&self.inner);
        let task_name = name.clone();
        let watched = async move {
            let how = match CatchUnwind(Box::pin(future)).await {
                Ok(result) => result.error().map(|error| format!("failed: {error}")),
                Err(panic) => Some(format!("panicked: {}", panic_text(panic.as_ref()))),
            };
            if let Some(inner) = inner.upgrade() {
                inner.ended(&task_name, kind, how);
            }
        };
        let mut state = self.state();
        let handle = tokio::spawn(watched.instrument(span));
        let tasks = &mut self.stage(&mut state, stage).tasks;
        // Many short tasks over a long life must not pile up.
        tasks.retain(|(_, handle)| !handle.is_finished());
        tasks.push((name, handle));
    }

    /// Begins the shutdown; the first reason is kept.
    pub fn shutdown(&self, why: impl Into<String>) {
        self.inner.begin(Reason::Requested(why.into()));
    }

    /// Waits until a shutdown begins and says why.
    pub async fn stopping(&self) -> Reason {
        let mut reason = self.inner.reason.subscribe();
        // The sender is in `self`, so waiting cannot fail.
        match reason.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => reason.clone(),
            _ => Reason::Requested("the supervisor is gone".into()),
        }
    }

    /// Names of the tasks that run now.
    pub fn running(&self) -> Vec<String> {
        let state = self.state();
        let tasks = state.stages.iter().flat_map(|stage| &stage.tasks);
        tasks
            .filter(|(_, handle)| !handle.is_finished())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Ends all tasks, stage by stage, within `deadline` in all, beginning the
    /// shutdown if nobody has. A stage that hangs leaves an eighth of the
    /// deadline to each later one. What is left is aborted and named.
    pub async fn finish(&self, deadline: Duration) -> Outcome {
        self.shutdown("shutdown");
        let until = tokio::time::Instant::now() + deadline;
        let mut unfinished = Vec::new();
        let mut index = 0;
        loop {
            let (tasks, later) = {
                let mut state = self.state();
                let count = state.stages.len();
                let Some(stage) = state.stages.get_mut(index) else {
                    break;
                };
                stage.token.cancel();
                (std::mem::take(&mut stage.tasks), count - index - 1)
            };
            let until = until - reserve(deadline, later);
            if tasks.is_empty() {
                index += 1;
                continue;
            }
            // A task may have spawned another: the stage is looked at again.
            for (name, mut handle) in tasks {
                if tokio::time::timeout_at(until, &mut handle).await.is_err() {
                    handle.abort();
                    unfinished.push(name);
                }
            }
        }
        Outcome {
            reason: self.stopping().await,
            unfinished,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    fn stage<'a>(&self, state: &'a mut State, stage: u8) -> &'a mut Stage {
        let index = usize::from(stage);
        while state.stages.len() <= index {
            let next = Stage::default();
            if state.stages.is_empty() && self.inner.reason.borrow().is_some() {
                next.token.cancel();
            }
            state.stages.push(next);
        }
        &mut state.stages[index]
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock in a half-done state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, reason: Reason) {
        let first = self.reason.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason);
            }
            first
        });
        if first && let Some(stage) = self.state().stages.first() {
            stage.token.cancel();
        }
    }

    fn ended(&self, task: &str, kind: Kind, how: Option<String>) {
        let stopping = self.reason.borrow().is_some();
        match (kind, how) {
            (Kind::Critical, how) if !stopping => {
                let how = how.unwrap_or_else(|| "ended".into());
                tracing::error!(task, how, "a critical task ended; shutting down");
                self.begin(Reason::TaskEnded {
                    task: task.into(),
                    how,
                });
            }
            (_, Some(how)) => tracing::error!(task, how, "a task failed"),
            (_, None) => tracing::debug!(task, "a task ended"),
        }
    }
}

/// What a stage leaves of the whole deadline for the `later` ones, so that one
/// that hangs does not take their time to end well: an eighth for each, at most
/// half.
fn reserve(deadline: Duration, later: usize) -> Duration {
    deadline / 8 * u32::try_from(later.min(4)).unwrap_or(4)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text")
}

/// A future whose panic is its result.
struct CatchUnwind<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchUnwind<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        // After a panic the future is never polled again, so nobody sees it
        // in a broken state.
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_critical_end_error_and_panic_start_the_shutdown() {
        type Body = fn() -> Result<(), io::Error>;
        let cases: [(Body, &str); 3] = [
            (|| Ok(()), "ended"),
            (
                || Err(io::Error::other("disk on fire")),
                "failed: disk on fire",
            ),
            (|| panic!("boom"), "panicked: boom"),
        ];
        for (body, how) in cases {
            let supervisor = Supervisor::new();
            let token = supervisor.token();
            supervisor.spawn("heart", Kind::Critical, async move { body() });
            let reason = supervisor.stopping().await;
            assert_eq!(
                reason,
                Reason::TaskEnded {
                    task: "heart".into(),
                    how: how.into()
                }
            );
            token.cancelled().await;
            let outcome = supervisor.finish(SOON).await;
            assert_eq!(outcome.reason, reason);
            assert!(outcome.unfinished.is_empty());
        }
    }

    #[tokio::test]
    async fn a_background_panic_changes_nothing() {
        let supervisor = Supervisor::new();
        supervisor.spawn("side", Kind::Background, async {
            assert!(std::hint::black_box(false), "boom");
        });
        while !supervisor.running().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!supervisor.token().is_cancelled());
        supervisor.shutdown("asked");
        assert_eq!(
            supervisor.finish(SOON).await.reason,
            Reason::Requested("asked".into())
        );
    }

    #[tokio::test]
    async fn stages_end_in_order() {
        let supervisor = Supervisor::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        for stage in [1_u8, 0, 2] {
            let (token, log) = (supervisor.stage_token(stage), Arc::clone(&log));
            supervisor.spawn_in(stage, format!("s{stage}"), Kind::Critical, async move {
                token.cancelled().await;
                tokio::task::yield_now().await;
                log.lock().unwrap().push(stage);
            });
        }
        let outcome = supervisor.finish(SOON).await;
        assert!(outcome.unfinished.is_empty());
        assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn the_deadline_names_what_hangs() {
        let supervisor = Supervisor::new();
        supervisor.spawn("stuck", Kind::Background, std::future::pending::<()>());
        let token = supervisor.stage_token(1);
        supervisor.spawn_in(1, "later", Kind::Background, async move {
            token.cancelled().await;
        });
        let outcome = supervisor.finish(Duration::from_millis(400)).await;
        assert_eq!(outcome.unfinished, ["stuck"]);
    }

    #[tokio::test]
    async fn a_task_spawned_during_shutdown_is_waited_for() {
        let supervisor = Supervisor::new();
        let (again, token) = (supervisor.clone(), supervisor.token());
        supervisor.spawn("parent", Kind::Background, async move {
            token.cancelled().await;
            again.spawn("child", Kind::Background, std::future::ready(()));
        });
        assert!(supervisor.finish(SOON).await.unfinished.is_empty());
        assert!(supervisor.running().is_empty());
    }

    #[tokio::test]
    async fn blocking_gives_the_value_back() {
        assert_eq!(blocking("sum", || 1 + 1).await, 2);
    }
}
