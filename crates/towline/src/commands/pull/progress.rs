//! How far pulls are: drawn on a terminal, as plain lines elsewhere, or as events.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use towline_images::{LayerPhase, Phase, Progress};
use towline_sys::task;

use crate::output::{self, DRAWN, Format, LINES, SOON};

/// The rate is that of the last so many seconds.
const LATELY: Duration = Duration::from_secs(5);

/// A pull that runs.
struct Pull {
    name: String,
    progress: watch::Receiver<Progress>,
    told: Progress,
    pace: Pace,
    /// Who pulls it, where that is another process.
    by: Option<String>,
}

/// How fast bytes come, and how long the rest takes at that.
#[derive(Default)]
struct Pace {
    /// When it was looked at, and the bytes then; the first one is as old as [`LATELY`], or older.
    looks: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Looks again; bytes a second lately, where they can be told.
    fn look(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let age = |then: Instant| now.saturating_duration_since(then);
        while self
            .looks
            .get(1)
            .is_some_and(|(then, _)| age(*then) >= LATELY)
        {
            self.looks.pop_front();
        }
        let (then, before) = *self.looks.front().unwrap_or(&(now, bytes));
        self.looks.push_back((now, bytes));
        let millis = u64::try_from(age(then).as_millis()).ok()?;
        (bytes.saturating_sub(before) * 1000).checked_div(millis)
    }
}

/// Pulls that run, and what of them stands on the terminal.
#[derive(Default)]
struct Pulls {
    running: Vec<Pull>,
    /// Lines that are drawn.
    drawn: usize,
    /// What registries wanted people to be told, and what was.
    warnings: Vec<String>,
}

impl Pulls {
    fn draw(&mut self, lines: &[String]) {
        if self.drawn > 0 || !lines.is_empty() {
            output::redraw(self.drawn, &lines.join("\n"));
        }
        self.drawn = lines.len();
    }
}

/// Shows pulls until dropped.
pub(super) struct Shown {
    pulls: Arc<Mutex<Pulls>>,
    how: How,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Drawn,
    Lines,
    Events,
    Not,
}

impl Shown {
    pub(super) fn start(format: Format) -> Self {
        let how = match format {
            Format::Json => How::Events,
            Format::Text if std::io::stderr().is_terminal() => How::Drawn,
            Format::Text => How::Lines,
            Format::Yaml => How::Not,
        };
        let pulls = Arc::default();
        let task = task::spawn("progress", show(Arc::clone(&pulls), how));
        Self { pulls, how, task }
    }

    /// A pull begins, here or in another process: where it reports.
    pub(super) fn add(&self, name: &str, by: Option<&str>) -> watch::Sender<Progress> {
        let (sender, progress) = watch::channel(Progress::default());
        let pull = Pull {
            name: name.to_owned(),
            progress,
            told: Progress::default(),
            pace: Pace::default(),
            by: by.map(str::to_owned),
        };
        if self.how == How::Events {
            event(name, "phase", serde_json::json!(Phase::Resolving));
        }
        lock(&self.pulls).running.push(pull);
        sender
    }

    /// A pull has ended.
    pub(super) fn end(&self, name: &str) {
        let mut pulls = lock(&self.pulls);
        let Some(at) = pulls.running.iter().position(|pull| pull.name == name) else {
            return;
        };
        let mut pull = pulls.running.remove(at);
        if self.how == How::Events {
            tell(&mut pull);
        } else {
            warn(&mut pulls, &pull);
        }
    }

    /// Prints something between what is drawn.
    pub(super) fn aside(&self, print: impl FnOnce()) {
        let mut pulls = lock(&self.pulls);
        pulls.draw(&[]);
        print();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.pulls).draw(&[]);
    }
}

fn lock(pulls: &Mutex<Pulls>) -> MutexGuard<'_, Pulls> {
    pulls.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn show(pulls: Arc<Mutex<Pulls>>, how: How) {
    let every = match how {
        How::Drawn | How::Events => DRAWN,
        How::Lines => LINES,
        How::Not => return,
    };
    // Nothing for what ends at once.
    let first = if how == How::Drawn { SOON } else { every };
    let mut tick = tokio::time::interval_at(Instant::now() + first, every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let mut pulls = lock(&pulls);
        if how == How::Events {
            pulls.running.iter_mut().for_each(tell);
            continue;
        }
        let now = Instant::now();
        let lines: Vec<(String, String)> = pulls
            .running
            .iter_mut()
            .map(|pull| (pull.name.clone(), stand(pull, now)))
            .collect();
        if how == How::Drawn {
            let columns = output::columns();
            let lines: Vec<String> = lines
                .iter()
                .map(|(name, stand)| output::fit(name, stand, columns))
                .collect();
            pulls.draw(&lines);
        } else {
            for (name, stand) in lines {
                output::note(format!("{name}: {stand}"));
            }
        }
    }
}

/// Passes on what a registry wants people to be told, once.
fn warn(pulls: &mut Pulls, pull: &Pull) {
    for warning in &pull.progress.borrow().warnings {
        if !pulls.warnings.contains(warning) {
            pulls.warnings.push(warning.clone());
            pulls.draw(&[]);
            output::note(format!("{}: the registry warns: {warning}", pull.name));
        }
    }
}

/// What a pull is at, and how far.
fn stand(pull: &mut Pull, now: Instant) -> String {
    let progress = pull.progress.borrow().clone();
    let (bytes, total) = progress.bytes();
    let rate = pull.pace.look(now, bytes);
    match progress.phase {
        // One of an earlier version says nothing of how far it is.
        Phase::Resolving => pull
            .by
            .as_ref()
            .map_or_else(|| "resolving".to_owned(), |by| format!("{by} pulls it")),
        Phase::Committing | Phase::Done => "committing".to_owned(),
        Phase::Layers if bytes >= total => {
            let layers = progress.layers.iter();
            let done = layers.filter(|layer| layer.phase == LayerPhase::Done);
            format!(
                "unpacking, {} of {} layers done",
                done.count(),
                progress.layers.len()
            )
        }
        Phase::Layers => {
            let percent = (bytes * 100).checked_div(total).unwrap_or(0);
            let rest = rate
                .filter(|rate| *rate > 0)
                .map_or_else(String::new, |rate| {
                    let left = (total - bytes).div_ceil(rate);
                    format!(", {}/s, {left} s left", output::size(rate))
                });
            format!("downloading, {percent}% of {}{rest}", output::size(total))
        }
    }
}

/// Tells what is new of a pull.
fn tell(pull: &mut Pull) {
    let now = pull.progress.borrow_and_update().clone();
    for warning in &now.warnings {
        if !pull.told.warnings.contains(warning) {
            event(&pull.name, "warning", serde_json::json!(warning));
        }
    }
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
    fn the_rate_is_that_of_the_last_seconds_however_often_it_is_looked() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let mut pace = Pace::default();
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
        let mut rarely = Pace::default();
        for look in 0..20 {
            rarely.look(at(look * 100), look * 1_000_000);
        }
        assert_eq!(
            rarely.look(at(2000), 19_000_000 + 50_000),
            Some(5000),
            "not of minutes ago"
        );
    }
}
