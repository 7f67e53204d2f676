//! The demo's workloads: `lab`'s scenarios made into images of the node's registry and objects of its API server.

mod access;
mod objects;
mod publish;

pub use access::{access, resolver};
pub use objects::{manifests, pods};
pub use publish::{Login, PublishError, publish};

/// The namespace that the demo lives in.
pub const NAMESPACE: &str = "demo";
