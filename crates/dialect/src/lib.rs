//! What runtimes and kubelets say about a failed pull, read into cause, step, endpoint and confidence.
//!
//! Structure first: wrappers are taken off one by one, names and URLs are taken out of the sentence, and only what the
//! speaker itself says decides. Words inside an image name, a host or a path decide nothing. In doubt the answer is
//! [`Cause::Unknown`]: a wrong cause costs more than none.
#![forbid(unsafe_code)]

mod reading;

pub use reading::Reading;

use towline_cause::{Confidence, suffix};

/// Longest text that is looked at, in bytes; what follows is ignored.
pub const MAX_TEXT: usize = 64 * 1024;

/// Reads a message of a kubelet or a runtime: the text of an event, a waiting message, or a runtime's own error.
pub fn read(text: &str) -> Reading {
    let mut reading = Reading::unknown();
    if let Some(suffix) = suffix::parse(text) {
        reading.cause = suffix.cause.cause();
        reading.step = suffix.step;
        reading.endpoint = suffix.endpoint;
        reading.confidence = Confidence::Stated;
    }
    reading
}
