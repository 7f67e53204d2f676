//! The node agent: runs the pods that the Kubernetes API gives to this node, through a CRI runtime.
//!
//! It speaks two protocols, the Kubernetes API and CRI, and nothing else, so it works with any API server and any runtime.
//! Reasons, messages, events and their timing are those of Kubernetes 1.36. What Towline adds (the annotation and condition
//! about pulls, early attempts) can be switched off.
#![forbid(unsafe_code)]

mod agent;
mod bucket;
mod clock;
mod credentials;
mod cri;
mod env;
mod events;
mod images;
mod metrics;
mod node;
mod objects;
mod options;
mod pleg;
mod probes;
mod replay;
mod server;
mod service;
mod sources;
mod status;
mod sync;
mod timing;
mod trace;
mod view;
mod volumes;
mod worker;
mod workers;

pub use clock::Clock;
pub use options::{Error, ImageGc, Kube, Options, Runtime, Serving};
pub use replay::{Replay, Wanted};
pub use service::{Handle, Service};
