//! The Kubernetes API over an embedded store.
//!
//! One generic path serves every kind, which is a row of data ([`kinds`]): discovery, tables, lists, watches, patches,
//! admission. The server has its own certificate authority, authenticates every caller and authorizes by fixed roles.
//!
//! [`Service::start`] binds all addresses before it returns; the [`Handle`] gives addresses, kubeconfigs, serving
//! certificates and the shutdown.

#![forbid(unsafe_code)]

mod admission;
mod app;
mod auth;
mod bootstrap;
mod error;
mod handlers;
mod kinds;
mod kubelet_client;
mod metrics;
mod patch;
mod pki;
mod protobuf;
mod request;
mod selector;
mod server;
mod service;
mod storage;
mod table;

pub use app::Limits;
pub use kubelet_client::KubeletClientError;
pub use pki::{Certified, Identity, PkiError};
pub use service::{Error, Handle, Options, Service};
pub use storage::{LogLimits, StoreError};
