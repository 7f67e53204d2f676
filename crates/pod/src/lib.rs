//! What Kubernetes says of a pod, as pure decisions: defaults, validation, the pull decision table, back-off, phase,
//! conditions, container statuses, the columns of `kubectl get`, event correlation, and Towline's own annotation about
//! pulls.
//!
//! Texts are Kubernetes' own, letter for letter (1.36). Time is an argument everywhere; nothing here does I/O.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod columns;
pub mod conditions;
pub mod defaults;
pub mod duration;
pub mod events;
pub mod logs;
pub mod phase;
pub mod pull;
pub mod pulls;
pub mod qos;
pub mod quantity;
pub mod status;
pub mod text;
pub mod validate;
