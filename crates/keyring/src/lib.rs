//! Credentials of an image pull: where they come from, which of them match an image and in which order they are
//! tried, exactly as the kubelet decides it; what is wrong with those that do not match; logins of docker and podman
//! for the command line; and the redaction of whatever is about to be printed.
//!
//! Matching and decoding do no I/O: bytes come in, values go out. The only part that touches the system is
//! [`helper`], which runs a credential helper program with bounds.
#![forbid(unsafe_code)]

mod credential;
mod entry;
mod go_base64;
pub mod helper;
pub mod location;
pub mod login;
pub mod redact;
mod ring;
pub mod secret;
mod value;

pub use credential::{Candidate, Credential, Origin};
pub use entry::EntryError;
pub use location::{Mismatch, explain_mismatch};
pub use login::{Login, Logins};
pub use ring::{Key, Keyring, Keys, Source};
pub use secret::{SecretError, SecretFault};
pub use value::Secret;
