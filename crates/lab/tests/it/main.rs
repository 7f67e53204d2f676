//! The lab's servers over real sockets.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

mod dns;
mod faults;
mod http;
