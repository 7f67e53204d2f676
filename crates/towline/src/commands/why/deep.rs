//! `towline why --deep`: how far the downloads are, on stderr.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use towline_explain::Deep;
use towline_probe::Progress;

use crate::output::{note, redraw, size};

/// Between two lines that are drawn over each other.
const DRAWN: Duration = Duration::from_millis(200);
/// Between two lines where nobody can draw.
const WRITTEN: Duration = Duration::from_secs(10);

/// Whether a line stands on the terminal that has no end yet.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Downloads that are shown as they come.
pub(super) fn watched() -> Deep {
    let terminal = std::io::stderr().is_terminal();
    let last = Mutex::new(Instant::now());
    let watch = move |progress: &Progress| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if terminal { DRAWN } else { WRITTEN };
        if last.elapsed() < pause {
            return;
        }
        *last = Instant::now();
        if terminal {
            OPEN.store(true, Ordering::Relaxed);
            redraw(1, &words(progress));
        } else {
            note(words(progress));
        }
    };
    Deep {
        bounds: towline_probe::Deep::default(),
        watch: Arc::new(watch),
    }
}

/// Takes the line away, so that the answer stands alone.
pub(super) fn end() {
    if OPEN.swap(false, Ordering::Relaxed) {
        redraw(1, "");
    }
}

/// Fits a terminal of 80 columns: of a long name the end is what tells it from others.
fn words(progress: &Progress) -> String {
    const NAME: usize = 36;
    let letters = progress.image.chars().count();
    let shown: String = progress
        .image
        .chars()
        .skip(letters.saturating_sub(NAME))
        .collect();
    let cut = if letters > NAME { ".." } else { "" };
    format!(
        "{cut}{shown}: blob {} of {}, {} of {}",
        progress.blob,
        progress.blobs,
        size(progress.bytes),
        size(progress.size)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        let progress = |image: &str| Progress {
            image: image.to_owned(),
            blob: 3,
            blobs: 120,
            bytes: 12_345_678,
            size: 999_400_000_000,
        };
        assert_eq!(
            words(&progress("r.test/a:v1")),
            "r.test/a:v1: blob 3 of 120, 12.3 MB of 999.4 GB"
        );
        let long = words(&progress(&format!("r.test/{}:v1", "a".repeat(200))));
        assert!(
            long.starts_with("..aaa") && long.contains("a:v1: blob 3"),
            "{long}"
        );
        assert!(long.chars().count() < 80, "{long}");
    }
}
