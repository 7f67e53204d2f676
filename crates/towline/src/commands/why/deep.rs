//! `towline why --deep`: how far the downloads are, on stderr.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use towline_explain::Deep;
use towline_probe::Progress;

use crate::output::{DRAWN, LINES, columns, fit, note, redraw, size};

/// Whether a line stands on the terminal that has no end yet.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Downloads that are shown as they come.
pub(super) fn watched() -> Deep {
    let terminal = std::io::stderr().is_terminal();
    let last = Mutex::new(Instant::now());
    let watch = move |progress: &Progress| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if terminal { DRAWN } else { LINES };
        if last.elapsed() < pause {
            return;
        }
        *last = Instant::now();
        if terminal {
            OPEN.store(true, Ordering::Relaxed);
            redraw(1, &fit(&progress.image, &stand(progress), columns()));
        } else {
            note(format!("{}: {}", progress.image, stand(progress)));
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

fn stand(progress: &Progress) -> String {
    format!(
        "blob {} of {}, {} of {}",
        progress.blob,
        progress.blobs,
        size(progress.bytes),
        size(progress.size)
    )
}
