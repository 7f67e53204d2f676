//! Readings measured against samples of the world.
//!
//! The samples are not part of the repository; `TOWLINE_SHARED` names the folder that holds them. They measure, and no
//! rule names one of them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::print_stderr,
    reason = "a measurement is printed, and a skipped test says so"
)]

mod corpus;
mod cut;
mod first;
mod names;
mod peers;
mod reports;
mod traps;
mod world;
