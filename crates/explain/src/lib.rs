//! Evidence in, diagnosis out: why an image does not pull, how sure that is, and the one change that helps.
//!
//! [`pod::explain`] gathers what the cluster says of a pod, [`proof`] replays the pull with the pod's own credentials, and
//! [`decide::decide`] - a plain function - weighs both. Read-only: nothing here changes a cluster except [`Action::apply`], which a
//! person asks for.
#![forbid(unsafe_code)]

mod action;
pub mod decide;
mod diagnosis;
mod evidence;
pub mod fixes;
pub mod image;
pub mod pod;
pub mod proof;
pub mod secrets;
mod target;

pub use action::{Action, ApplyError, Login};
pub use diagnosis::{API_VERSION, Diagnosis, Evidence, Fix, KIND, Retry, StepOutcome, StepSeen};
pub use evidence::Unread;
pub use target::{Owner, Target};
