//! Pulls from a real registry over loopback, hostile layers, crashes, full disks.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

mod crash;
mod cve;
mod deadlines;
mod differential;
mod evil;
mod failures;
mod helper;
mod keep;
mod kills;
mod overlay;
mod parts;
mod pull;
mod relay;
mod resume;
mod space;
mod sparse;
mod support;
mod unprivileged;
mod verify;
mod waiters;
