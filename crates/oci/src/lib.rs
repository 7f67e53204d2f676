//! The nouns of OCI distribution: reference, digest, platform, descriptor, manifest, index, image config, media types.
//!
//! Every document and name that arrives from a registry or a person passes through one strict parser here. Pure: no I/O and no clock.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod document;
pub mod media_type;
pub mod nobodys;
mod platform;
mod reference;

pub use config::{ImageConfig, ImageConfigError, ProcessConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Verifier};
pub use document::{Document, DocumentError, Index, MAX_DOCUMENT_BYTES, Manifest};
pub use platform::Platform;
pub use reference::{Problem, Reference, ReferenceError};
