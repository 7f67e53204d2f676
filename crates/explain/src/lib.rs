//! Evidence in, diagnosis out: why an image does not pull, how sure that is, and the one change that helps.
//!
//! [`pod::explain`] gathers what the cluster says of a pod, [`proof`] puts the pull into words as it was replayed with the pod's own
//! credentials, and [`decide::decide`] - a plain function - weighs both. [`scan::explain`] does so for workloads, namespaces and
//! clusters: each thing is asked once, and pods that fail for one reason are one answer. Read-only: nothing here changes a cluster except [`Action::apply`], which a
//! person asks for.
//!
//! # Examples
//!
//! Words alone, without a cluster:
//!
//! ```
//! use towline_cause::Cause;
//!
//! let message = r#"Failed to pull image "reg.example.com/team/app:v9": rpc error: code = NotFound desc = failed to pull and unpack image "reg.example.com/team/app:v9": failed to resolve reference "reg.example.com/team/app:v9": reg.example.com/team/app:v9: not found"#;
//! let diagnoses = towline_explain::text::explain(message);
//! assert_eq!(diagnoses[0].cause, Some(Cause::TagNotFound));
//! assert!(diagnoses[0].decided_by[0].command.as_deref().unwrap().starts_with("towline why "));
//! ```
//!
//! A pod of a cluster, proven against its registry:
//!
//! ```no_run
//! use towline_explain::{Budget, pod};
//!
//! # async fn why() -> Result<(), Box<dyn std::error::Error>> {
//! let context = pod::Context {
//!     kube: kube::Client::try_default().await?,
//!     registry: towline_distribution::Client::new(towline_distribution::Options::default())?,
//!     seen_from: "this machine".to_owned(),
//!     boot_id: None,
//!     budget: Budget::default(),
//!     eye: None,
//!     deep: None,
//! };
//! for diagnosis in pod::explain(&context, "shop", "web-1").await? {
//!     println!("{:?} ({}): {}", diagnosis.cause, diagnosis.confidence, diagnosis.summary);
//! }
//! # Ok(())
//! # }
//! ```
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
mod limit;
mod memo;
pub mod pod;
pub mod preview;
mod prober;
pub mod proof;
mod retired;
pub mod scan;
mod scrub;
pub mod secrets;
mod speaker;
mod target;
pub mod text;
mod views;
mod world;

pub use action::{Action, ApplyError, Login};
pub use diagnosis::{
    API_VERSION, Affected, Decider, Diagnosis, Evidence, Fix, KIND, NodeFile, Retry, Sight,
    StepOutcome, StepSeen,
};
pub use elsewhere::Elsewhere;
pub use evidence::Unread;
pub use limit::Limit;
pub use prober::{Budget, Deep};
pub use target::{Owner, Target};
