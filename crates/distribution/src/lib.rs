//! The registry client of Towline, pull and push, on the OCI distribution API.
//!
//! It owns its connector, so that every failure keeps its type: which phase failed (dns, connect, tls, authenticate, resolve, fetch,
//! verify), at which endpoint, and why. Everything read from the network is bounded in size and time. No error, fact or log line
//! holds a secret or the query of a URL.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod certificate;
mod challenge;
mod client;
mod clock;
mod connect;
mod denied;
mod dial;
mod dns;
mod endpoint;
pub mod facts;
mod fault;
#[cfg(test)]
mod fuzz;
mod guard;
mod manage;
mod manifest;
mod options;
mod pace;
mod page;
mod ping;
mod pool;
mod proxy;
mod public;
mod push;
mod redirect;
mod refused;
mod resend;
mod retry;
mod said;
mod scheme;
mod session;
mod sniff;
mod tags;
mod target;
pub mod tls;
mod token;
mod trace;
mod transfer;
mod transport;
mod url;
mod watch;

pub use client::{
    BlobHead, BlobStream, Client, ManifestHead, Ping, Repository, Resolved, select_platform,
};
pub use endpoint::Sources;
pub use endpoint::file::ConfigError;
pub use endpoint::logins::{MirrorLogins, MirrorPlace};
pub use endpoint::plan::{Plan, PlanError, PlannedEndpoint, SkippedEndpoint};
pub use facts::{Fact, Observer, Recorder};
pub use options::{Limits, Options, OptionsError, PlainHttp, Resolver, Retries, Timeouts};
pub use pace::Pace;
pub use page::is_web_page;
pub use proxy::{Proxies, ProxyOptions};
pub use trace::Trace;
