//! The registry over real sockets, with clients of our own and of others.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

mod access;
mod browser;
mod cache;
mod client;
mod containerd;
mod crash;
mod cve;
mod matrix;
mod operation;
mod peers;
mod pull;
mod push;
mod s3;
mod tls;
mod tokens;
mod web;
