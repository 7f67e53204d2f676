//! Components wired into one process: started in order, each on its public protocol, and stopped in order.
#![forbid(unsafe_code)]

pub mod demo;
mod error;
mod facts;
mod options;
mod parts;
mod service;
mod temp;

pub use error::Error;
pub use facts::Facts;
pub use options::Options;
pub use service::{Handle, Service};
pub use temp::TempDir;

/// Whether this process runs as root, which containers need for now.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
