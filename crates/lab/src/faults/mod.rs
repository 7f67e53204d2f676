//! A reverse proxy in front of any registry that misbehaves by rule.
//!
//! Rules are data: the first one that matches a request is applied, the others let it pass. The
//! proxy itself is transparent: paths, headers and bodies go through as they are, redirects too.

mod body;
mod proxy;
mod rule;
mod server;

pub use proxy::{Options, Proxy, Seen};
pub use rule::{Fault, Match, Nth, Rule};
pub(crate) use server::{Body, full, serve};
