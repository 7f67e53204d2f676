//! How far pulls are: drawn on a terminal, as plain lines elsewhere, or as events.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use towline_images::Progress;
use towline_sys::task;

use super::Args;
use crate::output::{self, Format};

/// Progress appears only when a pull takes longer than this.
const SOON: Duration = Duration::from_millis(250);
/// On a terminal it is drawn so often.
const DRAWN: Duration = Duration::from_millis(100);
/// Elsewhere a line appears so often.
const LINES: Duration = Duration::from_secs(10);

/// A pull that runs.
struct Pull {
    name: String,
    progress: watch::Receiver<Progress>,
    told: Progress,
}

/// Shows pulls until dropped.
pub(super) struct Shown {
    pulls: Arc<Mutex<Vec<Pull>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum How {
    Drawn,
    Lines,
    Events,
    Not,
}

impl Shown {
    pub(super) fn start(args: &Args) -> Self {
        let how = match args.output {
            _ if args.events => How::Events,
            Format::Text if std::io::stderr().is_terminal() => How::Drawn,
            Format::Text => How::Lines,
            _ => How::Not,
        };
        let pulls = Arc::default();
        let task = task::spawn("progress", show(Arc::clone(&pulls), how));
        Self { pulls, task }
    }

    /// A pull begins: where it reports.
    pub(super) fn add(&self, name: &str) -> watch::Sender<Progress> {
        let (sender, progress) = watch::channel(Progress::default());
        let pull = Pull {
            name: name.to_owned(),
            progress,
            told: Progress::default(),
        };
        lock(&self.pulls).push(pull);
        sender
    }

    /// A pull has ended.
    pub(super) fn remove(&self, name: &str) {
        let mut pulls = lock(&self.pulls);
        if let Some(at) = pulls.iter().position(|pull| pull.name == name) {
            pulls.remove(at);
        }
        // The line has to be gone before anything else is printed.
        if std::io::stderr().is_terminal() {
            output::redraw("");
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(pulls: &Mutex<Vec<Pull>>) -> MutexGuard<'_, Vec<Pull>> {
    pulls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn show(pulls: Arc<Mutex<Vec<Pull>>>, how: How) {
    let every = match how {
        How::Drawn | How::Events => DRAWN,
        How::Lines => LINES,
        How::Not => return,
    };
    if matches!(how, How::Drawn) {
        tokio::time::sleep(SOON).await;
    }
    let started = Instant::now();
    let mut tick = tokio::time::interval_at(started + every.min(SOON), every);
    loop {
        tick.tick().await;
        let mut pulls = lock(&pulls);
        match how {
            How::Events => pulls.iter_mut().for_each(tell),
            _ if pulls.is_empty() => {}
            How::Drawn => output::redraw(&summary(&pulls)),
            // Nothing for what ends at once.
            _ if started.elapsed() < LINES => {}
            _ => output::note(summary(&pulls)),
        }
    }
}

fn summary(pulls: &[Pull]) -> String {
    let one = |pull: &Pull| {
        let (bytes, total) = pull.progress.borrow().bytes();
        let percent = (bytes * 100).checked_div(total).unwrap_or(0);
        format!("{} {percent}% of {total} bytes", pull.name)
    };
    let all: Vec<String> = pulls.iter().map(one).collect();
    all.join(", ")
}

/// Tells what is new of a pull.
fn tell(pull: &mut Pull) {
    let now = pull.progress.borrow_and_update().clone();
    if now.phase != pull.told.phase {
        event(&pull.name, "phase", serde_json::json!(now.phase));
    }
    for (at, layer) in now.layers.iter().enumerate() {
        if pull.told.layers.get(at) != Some(layer) {
            event(&pull.name, "layer", serde_json::json!(layer));
        }
    }
    pull.told = now;
}

/// Prints one event.
pub(super) fn event(image: &str, kind: &str, value: serde_json::Value) {
    let mut event = serde_json::json!({
        "apiVersion": "towline.dev/v1",
        "kind": "PullEvent",
        "time": jiff::Timestamp::now().to_string(),
        "image": image,
        "event": kind,
    });
    event[kind] = value;
    // Nobody is left to tell when stdout is gone; the pull goes on.
    output::line(event).ok();
}
