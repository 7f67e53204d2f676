//! Components wired into one process: started in order, each on its public protocol, and stopped in order.
#![forbid(unsafe_code)]

pub mod demo;
mod error;
mod facts;
pub mod lab;
mod options;
mod parts;
pub mod replay;
mod service;
mod temp;

pub use error::Error;
pub use facts::Facts;
pub use options::{Foreign, Options};
pub use service::{Handle, Service};
pub use temp::TempDir;

/// The boot id of this machine: a node that reports the same one is this machine.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Whether this process runs as root, which containers need for now.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
