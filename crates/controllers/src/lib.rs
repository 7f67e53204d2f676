//! The controllers: what makes the cluster become what its objects say.
//!
//! Deployments make replica sets, replica sets make pods, namespaces get what every namespace has and
//! lose everything when they go, objects whose owners are gone go too, and a node that fell silent is
//! said to be unknown. Each decision is a plain function (`plan`); the loops around them watch and write.
#![forbid(unsafe_code)]

mod cache;
pub mod deployment;
mod event;
pub mod gc;
mod namespaces;
pub mod nodes;
pub mod owner;
pub mod replicaset;
mod retry;
mod service;
mod workloads;

pub use service::{Error, Handle, Options, Service};
