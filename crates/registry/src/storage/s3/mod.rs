//! Content on S3-compatible object storage, shared by one writer and any number of readers.
//!
//! | object | holds |
//! | --- | --- |
//! | `blobs/<algorithm>/<two digits>/<hex>/<uuid>` | a blob; its name is used once and never again |
//! | `log/<number>` | what was changed, one entry after the other, each written only if there is none of its number |
//! | `snapshots/<number>` | everything that the log up to some entry comes to; older entries go with time ([`compact`]) |
//! | `lease` | who writes, written anew every few seconds |
//!
//! What repositories hold is what the log says, and nothing else is visible. Whoever becomes the writer puts an entry of its own at
//! the end of the log; a writer before it, however long it slept, meets that entry where its own next one belongs, and is
//! fenced: it can add blobs, which nobody can see, and nothing more. Blobs are deleted only after the log said that they are gone, by names
//! that no later entry can bring back. So the lease need not be exact: it says who should write, the log says who can.

mod blobs;
mod checksum;
mod client;
mod compact;
mod feed;
mod health;
mod journal;
mod lease;
mod metadata;
mod options;
mod remote;
mod state;
mod upload;

pub(crate) use blobs::S3Blobs;
pub(crate) use journal::{Journal, OpenError};
pub(crate) use metadata::S3Metadata;
pub use options::{Role, S3Error, S3Options};
pub use remote::Remote;
