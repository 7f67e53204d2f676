//! The client against servers that are scripted byte by byte, and against a real registry.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod appendix;
mod auth;
mod blob;
mod cve;
mod endpoints;
mod http2;
mod leak;
mod network;
mod own;
mod parts;
mod proxy;
mod real;
mod resolve;
mod restart;
mod rows;
mod security;
mod stub;
mod unreachable;
