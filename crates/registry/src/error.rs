//! Why a registry does not start or ends early.

use std::net::SocketAddr;
use std::path::PathBuf;

use towline_sys::format::FormatError;
use towline_sys::fs::FsError;

use crate::config::ConfigError;
use crate::storage::StorageError;
use crate::storage::s3::S3Error;

/// Why a registry does not start or ends early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something else, or another version.
    #[error("open the registry's directory {}", root.display())]
    Format {
        /// The directory.
        root: PathBuf,
        /// The reason.
        source: FormatError,
    },
    /// The directory cannot be used.
    #[error("prepare the registry's directory {}", root.display())]
    Storage {
        /// The directory.
        root: PathBuf,
        /// The reason.
        source: FsError,
    },
    /// The object storage cannot be described.
    #[error("use the object storage")]
    SharedOptions(#[from] S3Error),
    /// The object storage cannot be used.
    #[error("use the object storage {place}")]
    SharedStorage {
        /// Bucket and prefix.
        place: String,
        /// The reason.
        source: StorageError,
    },
    /// What a cache holds is its own.
    #[error("a cache of other registries keeps its content in a directory, not on object storage")]
    SharedCache,
    /// Another process serves this directory.
    #[error("{} is in use by another registry", root.display())]
    InUse {
        /// The directory.
        root: PathBuf,
    },
    /// The configuration file cannot be used.
    #[error("use the configuration")]
    Config(#[from] ConfigError),
    /// No address to listen on was given.
    #[error("no address to listen on")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// Anyone in the network could come in without a login, and nobody said that this is meant.
    #[error(
        "refusing to listen on {address}, which is not loopback, while anyone may {may} without a login: {fix}, or say that it is meant (`--open-beyond-loopback`, or `openBeyondLoopback: true` in the file)"
    )]
    OpenToTheNetwork {
        /// The address.
        address: SocketAddr,
        /// What anyone might do.
        may: &'static str,
        /// What would ask for a login.
        fix: &'static str,
    },
    /// The certificate or its key cannot be used.
    #[error("use the certificate and key")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration turned TLS on or off.
    #[error("TLS is turned on or off by a restart only")]
    TlsChanged,
    /// Garbage cannot be collected.
    #[error("collect garbage")]
    Collect(#[source] StorageError),
    /// The registry that serves the directory cannot be asked.
    #[error("ask the registry that serves this directory at {}", path.display())]
    Control {
        /// Its socket.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The registry that serves the directory could not do it.
    #[error("the registry that serves this directory: {0}")]
    Refused(String),
    /// An upstream cannot be cached.
    #[error("cache the upstreams")]
    Upstream(#[source] crate::cache::options::UpstreamError),
    /// The access log cannot be opened.
    #[error("open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}
