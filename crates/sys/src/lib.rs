//! The few low-level calls of Towline: mounts, namespaces, cgroups, confined
//! opening, peer credentials; file operations whose errors name their path;
//! supervision of tasks; format versions of what is on disk.
//!
//! Almost everything is safe Rust over the wrappers of `rustix` and `nix`; the
//! few blocks of `unsafe`, for calls that have none, are in [`proc`], [`memory`],
//! [`mount`] and [`socket`].
//!
//! Functions block unless they are `async`; callers in an async context move
//! them to [`task::blocking`].

pub mod cgroup;
pub mod confine;
pub mod confined;
pub mod format;
pub mod fs;
pub mod memory;
pub mod mount;
pub mod ns;
mod peer;
pub mod proc;
pub mod root;
pub mod socket;
pub mod task;
pub mod testing;
mod tree;

pub use peer::{PeerCredentials, peer_credentials};
