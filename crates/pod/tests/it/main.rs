//! The decisions of this room against the record of a real node: what was recorded has to come out again.
//!
//! The record is not part of the repository; `TOWLINE_SHARED` names the folder that holds it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod golden;
