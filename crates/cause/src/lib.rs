//! Why an image pull fails: one closed vocabulary for code, JSON, metrics, docs and messages.
//!
//! A cause is named where it is known and carried upward as a [`Failure`]; no layer parses text to learn it again.
//! Pure: no I/O and no clock.
#![forbid(unsafe_code)]

mod confidence;
mod failure;
mod name;
mod page;
mod step;
pub mod suffix;
mod vocabulary;

pub use confidence::Confidence;
pub use failure::{BoxError, Failure};
pub use name::CauseName;
pub use page::{Page, page};
pub use step::Step;
pub use vocabulary::{Cause, Fixer, Group};
