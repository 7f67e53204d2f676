//! The store on a real disk.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

mod blobs;
mod images;
mod layers;
mod opening;
mod spools;
mod support;
