//! The scheduler: binds pods to nodes through the Kubernetes API, as `default-scheduler` does.
//!
//! [`decide`] is the whole decision as a plain function; the rest watches, binds and says why not.
#![forbid(unsafe_code)]

mod affinity;
mod bind;
pub mod decide;
mod service;
mod state;

pub use service::{Error, Handle, Options, Service};
