//! The shim as the runtime uses it: real processes, cgroups and namespaces.
//! Needs root and a static `busybox`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod exec;
mod exit;
mod life;
mod logs;
mod pod;
mod sandbox;
mod security;
