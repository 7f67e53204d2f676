//! One pod's containers: made, watched, logged and ended by a process of their
//! own, which outlives the runtime that started it.
//!
//! [`main`] is entered before the process has any thread, and never starts
//! one: the OCI runtime library runs Rust code in a cloned child, which is only
//! sound in a process with a single thread. Everything is one loop over
//! `poll`; only making a container and starting an exec block it,
//! for some milliseconds.
//!
//! The protocol is in `towline-shim-api`. How it starts is told in `launch`.
#![forbid(unsafe_code)]

mod cleanup;
mod connection;
mod container;
mod exe;
mod exec;
mod executor;
mod launch;
mod log;
mod oci;
mod paths;
mod sandbox;
mod server;
mod spec;
mod stats;
mod watchdog;

use std::ffi::OsString;
use std::process::ExitCode;

/// The program: `start DIR`, `cleanup DIR`, or (of its own accord) `init`.
/// `args` are the last of the process's own arguments: the shim executes itself
/// again with what came before them (`towline shim`). Must be called while the
/// process has one thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    launch::main(&args.into_iter().collect::<Vec<_>>())
}

/// An error in the words of the protocol.
fn fail(
    code: towline_shim_api::FailureCode,
    message: impl Into<String>,
) -> towline_shim_api::Failure {
    towline_shim_api::Failure {
        code,
        message: message.into(),
    }
}

/// An error that nobody decides on, with its causes.
fn internal(error: &dyn std::error::Error) -> towline_shim_api::Failure {
    fail(
        towline_shim_api::FailureCode::Internal,
        towline_sys::task::chain(error),
    )
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
