//! The controllers on a real API server; a task that says of pods what a kubelet would takes a node's place.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

mod cluster;
mod deployments;
mod garbage;
mod namespaces;
