//! The protocol between the runtime and a pod's shim.
//!
//! The runtime writes a [`SandboxConfig`] into the pod's state directory and
//! starts the shim with that directory; the shim answers one [`Ready`] line
//! and serves a unix socket. On the socket each message is a frame (see
//! [`frame`]): four bytes of length, big endian, then that many bytes of JSON.
//! A connection starts with [`Request::Hello`] and then carries one request at
//! a time; each request is answered by exactly one [`Response`] other than
//! [`Response::Output`], of which an exec sends any number before it. Several
//! connections may be open, so that one that waits holds up no other. Closing
//! a connection drops its request: an exec that runs for it is killed,
//! everything else goes on.
//!
//! Unknown fields are ignored and new ones have defaults, so a field can be
//! added within a version. Anything else takes a new version; the previous
//! one stays spoken.
#![forbid(unsafe_code)]

mod client;
mod config;
pub mod frame;
mod request;
mod response;

pub use client::{Client, ClientError, ExecResult, connect};
pub use config::{IpcMode, Network, PidMode, Ready, SandboxConfig};
pub use request::{Create, Exec, Request};
pub use response::{
    ContainerState, ContainerStats, ExecExit, Exit, Failure, FailureCode, Hello, Namespaces,
    Response, Status, Stream,
};

/// The newest version of the protocol that this build speaks.
pub const VERSION: u32 = 1;

/// The oldest version that this build still speaks: the one before
/// [`VERSION`], once there is one.
pub const OLDEST_VERSION: u32 = 1;

/// Largest frame, in bytes, without its length.
pub const MAX_FRAME: usize = 20 << 20;

/// Most that is kept of each of the two outputs of an exec, in bytes.
pub const EXEC_OUTPUT_LIMIT: u64 = 16 << 20;

/// The file in a pod's state directory with its [`SandboxConfig`].
pub const CONFIG_FILE: &str = "sandbox.json";

/// The shim's socket in a pod's state directory.
pub const SOCKET_FILE: &str = "shim.sock";

/// The directory in a pod's state directory with one [`ContainerState`] a
/// container, `<id>.json`: readable also when the shim is gone.
pub const CONTAINERS_DIR: &str = "containers";

/// The version that a server speaks with a client that offers `oldest` to
/// `newest`, `None` when they share none.
pub fn negotiate(oldest: u32, newest: u32) -> Option<u32> {
    let version = newest.min(VERSION);
    (version >= oldest.max(OLDEST_VERSION)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 9), Some(VERSION));
        assert_eq!(negotiate(VERSION + 1, VERSION + 2), None);
        assert_eq!(negotiate(0, 0), None);
    }
}
