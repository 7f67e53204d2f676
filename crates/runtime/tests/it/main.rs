//! The runtime over its socket: real images, real shims, real containers. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed test is what a panic is for")]

mod control;
mod crictl;
mod cve;
mod fixture;
mod pods;
mod pulls;
mod security;
