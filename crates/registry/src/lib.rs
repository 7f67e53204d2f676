//! The OCI distribution server: push and pull for every client that speaks the distribution API.
//!
//! One request goes through [`route`](self) (what is asked), [`access`] (may they), a handler (what it
//! means) and [`storage`] (bytes on disk). A blob is stored once; a repository reaches it by a link of
//! its own, so that nobody reads through one repository what only another one holds. Repositories of other registries
//! are cached by `cache` as they are asked for.
#![forbid(unsafe_code)]

pub mod access;
mod activity;
mod body;
mod cache;
mod check;
mod collect;
mod config;
mod control;
mod error;
mod handlers;
mod idle;
mod log;
mod metrics;
mod names;
mod options;
mod quota;
mod range;
mod rate;
mod ready;
mod refusal;
mod refusals;
mod reload;
mod route;
mod sendfile;
mod server;
mod settings;
mod storage;
mod tls;
mod tokens;
mod uploads;
mod web;

pub use cache::options::{CacheOptions, Upstream, UpstreamError};
pub use check::{Checked, Problem, check, check_shared};
pub use collect::{Collected, Collection};
pub use config::{ConfigError, parse_size};
pub use control::{collect, collect_shared};
pub use error::Error;
pub use names::{NameError, Repository, Tag};
pub use options::{ClientAuth, Drain, Limits, Login, Mount, Options, Schedule, Tls, Tokens};
pub use quota::{OverQuota, Quota};
pub use rate::Rate;
pub use server::{Handle, Service};
pub use storage::s3::{Remote, Role, S3Error, S3Options};
pub use storage::{BlobStore, Content, ManifestRecord, MetadataStore, StorageError};
