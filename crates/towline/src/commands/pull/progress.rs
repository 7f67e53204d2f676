//! How far pulls are: drawn on a terminal, as plain lines elsewhere, or as events.

use std::collections::VecDeque;
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
    pace: Pace,
}

/// How fast bytes come, and how long the rest takes at that.
struct Pace {
    /// When it was looked at, and the bytes then: enough for [`LOOKS`] back.
    looks: VecDeque<(Instant, u64)>,
}

/// The rate is that of so many looks, drawn or told: 5 s.
const LOOKS: usize = 50;

impl Pace {
    /// Looks again; bytes a second lately, where they can be told.
    fn look(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let (then, before) = *self.looks.front().unwrap_or(&(now, bytes));
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, bytes));
        let millis = u64::try_from(now.saturating_duration_since(then).as_millis()).ok()?;
        (bytes.saturating_sub(before) * 1000).checked_div(millis)
    }
}

/// Shows pulls until dropped.
pub(super) struct Shown {
    pulls: Arc<Mutex<Vec<Pull>>>,
    how: How,
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
            Format::Json => How::Events,
            Format::Text if std::io::stderr().is_terminal() => How::Drawn,
            Format::Text => How::Lines,
            Format::Yaml => How::Not,
        };
        let pulls = Arc::default();
        let task = task::spawn("progress", show(Arc::clone(&pulls), how));
        Self { pulls, how, task }
    }

    /// A pull begins: where it reports.
    pub(super) fn add(&self, name: &str) -> watch::Sender<Progress> {
        let (sender, progress) = watch::channel(Progress::default());
        let pull = Pull {
            name: name.to_owned(),
            progress,
            told: Progress::default(),
            pace: Pace {
                looks: VecDeque::with_capacity(LOOKS),
            },
        };
        lock(&self.pulls).push(pull);
        sender
    }

    /// A pull has ended.
    pub(super) fn remove(&self, name: &str) {
        let mut pulls = lock(&self.pulls);
        if let Some(at) = pulls.iter().position(|pull| pull.name == name) {
            let mut pull = pulls.remove(at);
            // What happened since the last look.
            if matches!(self.how, How::Events) {
                tell(&mut pull);
            }
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
            How::Drawn => output::redraw(&summary(&mut pulls)),
            // Nothing for what ends at once.
            _ if started.elapsed() < LINES => {}
            _ => output::note(summary(&mut pulls)),
        }
    }
}

fn summary(pulls: &mut [Pull]) -> String {
    let one = |pull: &mut Pull| {
        let (bytes, total) = pull.progress.borrow().bytes();
        let percent = (bytes * 100).checked_div(total).unwrap_or(0);
        let rate = pull.pace.look(Instant::now(), bytes);
        let rate = rate.filter(|rate| *rate > 0 && bytes < total);
        let rest = rate.map_or_else(String::new, |rate| {
            let left = (total - bytes).div_ceil(rate);
            format!(", {}/s, {left} s left", output::size(rate))
        });
        format!("{} {percent}% of {}{rest}", pull.name, output::size(total))
    };
    let all: Vec<String> = pulls.iter_mut().map(one).collect();
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
    let (bytes, total) = now.bytes();
    let rate = pull.pace.look(Instant::now(), bytes);
    if (bytes, total) != pull.told.bytes() {
        let left = rate.and_then(|rate| (total - bytes.min(total)).checked_div(rate));
        let all = serde_json::json!({
            "bytes": bytes, "total": total, "bytesPerSecond": rate, "secondsLeft": left,
        });
        event(&pull.name, "progress", all);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_looks() {
        let mut pace = Pace {
            looks: VecDeque::new(),
        };
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        assert_eq!(pace.look(at(0), 0), None);
        assert_eq!(pace.look(at(1), 500), Some(5000));
        for tenths in 2..100 {
            pace.look(at(tenths), 500);
        }
        assert_eq!(
            pace.look(at(100), 500),
            Some(0),
            "what was long ago is forgotten"
        );
        assert_eq!(pace.look(at(101), 5500), Some(1000));
    }
}
