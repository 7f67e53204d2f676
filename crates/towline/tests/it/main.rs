//! The program as a person uses it: the real binary, real registries, the real kubectl.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it is"
)]
#![cfg(feature = "node")]

mod support;

mod access;
mod archive;
mod beside;
mod clients;
mod clusters;
mod command_line;
mod containerd;
mod events;
mod follow;
mod foreign;
mod from_node;
mod from_node_pod;
mod in_cluster;
mod keeping;
mod lab;
mod leaks;
mod logins;
mod many;
mod node;
mod owners;
mod paste;
mod pulling;
mod pulls;
mod registry;
mod signals;
mod store;
mod why;
mod why_deep;
mod witnesses;
