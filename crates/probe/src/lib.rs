//! One pull replayed step by step, without keeping anything: a request and a report that can be sent and stored.
//!
//! The report says what each step asked, of whom, with which credential (never its value), what came back and how long it took;
//! and, where the pull would fail, the cause with its evidence.
#![forbid(unsafe_code)]

mod clock;
mod content;
mod contrast;
mod credentials;
mod download;
mod limit;
mod near;
mod network;
mod report;
mod request;
mod run;

pub use download::Progress;
pub use limit::RateLimit;
pub use near::near;
pub use report::{API_VERSION, Clock, FailureReport, KIND, Outcome, Report, StepReport, Tried};
pub use request::{Deep, Request};
pub use run::{run, run_watched};
