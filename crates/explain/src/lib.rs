//! Evidence in, diagnosis out: why an image does not pull, how sure that is, and the one change that helps.
//!
//! [`pod::explain`] gathers what the cluster says of a pod, [`proof`] puts the pull into words as it was replayed with the pod's own
//! credentials, and [`decide::decide`] - a plain function - weighs both. [`scan::explain`] does so for workloads, namespaces and
//! clusters: each thing is asked once, and pods that fail for one reason are one answer. Read-only: nothing here changes a cluster except [`Action::apply`], which a
//! person asks for.
#![forbid(unsafe_code)]

mod action;
pub mod decide;
mod decider;
mod diagnosis;
mod elsewhere;
mod evidence;
mod expiry;
pub mod eye;
pub mod fixes;
mod fold;
pub mod image;
mod memo;
pub mod pod;
pub mod preview;
mod prober;
pub mod proof;
mod retired;
pub mod scan;
mod scrub;
pub mod secrets;
mod target;
pub mod text;
mod views;
mod world;

pub use action::{Action, ApplyError, Login};
pub use diagnosis::{
    API_VERSION, Affected, Decider, Diagnosis, Evidence, Fix, KIND, Retry, Sight, StepOutcome,
    StepSeen,
};
pub use elsewhere::Elsewhere;
pub use evidence::Unread;
pub use prober::Budget;
pub use target::{Owner, Target};
