//! The CRI runtime: images, pod sandboxes and containers, served to a kubelet over a unix socket.
//!
//! A sandbox is one shim process, which holds the pod's namespaces and outlives this process; no pause image is
//! needed. What runs is remembered on disk and taken up again after a restart. Images come from `towline-images`, and a
//! pull that fails is answered with its cause: as text, as a suffix in the text, and as a typed status detail.
#![forbid(unsafe_code)]

mod container;
pub mod control;
mod convert;
mod core;
mod fault;
mod files;
mod image_service;
mod image_store;
mod layout;
mod log_path;
mod metrics;
mod network;
mod options;
mod pull;
mod record;
mod recover;
mod runtime_service;
mod sandbox;
mod server;
mod service;
mod shim;
mod spec;
mod stats;

pub use network::{LinkError, Network, NetworkError, NetworkOptions, NotANetwork};
pub use options::Options;
pub use service::{Error, Handle, Service};
pub use shim::ShimError;
pub use towline_images::{Ceilings, StoreOptions, Unpacking};
