//! The node agent between a scripted runtime and a scripted API server: hours of back-off in milliseconds, compared with
//! what a real Kubernetes 1.36 node showed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as expected"
)]

mod api;
mod bench;
mod collect;
mod cri;
mod goldens;
mod lifecycle;
mod retry;
