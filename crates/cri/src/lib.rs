//! The CRI v1 protocol: types and services generated from our own description of the wire format, a client over a
//! unix socket, and the form in which a failed pull travels through gRPC.
#![forbid(unsafe_code)]

pub mod client;
pub mod error;
pub mod metadata;
pub mod v1;

/// The largest message that either side accepts, in bytes: what the kubelet allows. A list of thousands of containers
/// does not fit into gRPC's default of 4 MiB.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The version of the protocol, as `Version` names it.
pub const API_VERSION: &str = "v1";
