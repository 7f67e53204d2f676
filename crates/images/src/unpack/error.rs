//! Why a layer cannot be unpacked.

use std::borrow::Cow;
use std::io;

use towline_cause::Cause;

use crate::ceilings::Limit;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive is malformed.
    #[error("the archive is malformed at byte {at}: {problem}")]
    Archive { at: u64, problem: String },
    /// An entry that may not be or cannot be made.
    #[error("entry {path:?}: {problem}")]
    Entry { path: String, problem: String },
    /// An entry of a kind that is not supported.
    #[error("entry {path:?}: {what} is not supported")]
    Unsupported { path: String, what: String },
    /// Something is larger than allowed.
    #[error("{}", .limit.sentence(.name, *.ceiling))]
    Ceiling {
        limit: Limit,
        /// The entry or attribute, where one is too large.
        name: String,
        ceiling: u64,
    },
    /// The node's disk refused.
    #[error("entry {path:?}: {action}")]
    Io {
        action: Cow<'static, str>,
        path: String,
        #[source]
        source: io::Error,
    },
    /// The compressed bytes could not be read or decompressed.
    #[error("the layer cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The process that unpacks ended before it was done, or could not begin.
    #[error("the helper process that unpacks it {0}")]
    Helper(String),
    /// The download stopped: whoever stopped it knows why.
    #[error("the download stopped")]
    Stopped,
}

impl UnpackError {
    /// The cause of a pull that fails with this.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Archive { .. } | Self::Entry { .. } | Self::Decompress(_) | Self::Helper(_) => {
                Cause::LayerExtractFailed
            }
            // A window is a way to compress: the image may be small.
            Self::Unsupported { .. }
            | Self::Ceiling {
                limit: Limit::ZstdWindow,
                ..
            } => Cause::UnsupportedLayer,
            Self::Ceiling { .. } => Cause::ImageTooLarge,
            Self::Stopped => Cause::PullStalled,
            Self::Io { action, source, .. } => {
                let chown = action.starts_with(CHOWN);
                match source
                    .raw_os_error()
                    .map(rustix::io::Errno::from_raw_os_error)
                {
                    Some(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) if chown => {
                        Cause::UserNamespaceRange
                    }
                    _ => towline_store::io_cause(source).unwrap_or(Cause::LayerExtractFailed),
                }
            }
        }
    }

    /// Whether the bytes themselves may be at fault: then their digest decides.
    pub(crate) fn blames_bytes(&self) -> bool {
        matches!(
            self,
            Self::Archive { .. }
                | Self::Entry { .. }
                | Self::Unsupported { .. }
                | Self::Decompress(_)
        )
    }

    /// Something of the whole layer is over its ceiling.
    pub(crate) fn over(limit: Limit, ceiling: u64) -> Self {
        Self::Ceiling {
            limit,
            name: String::new(),
            ceiling,
        }
    }

    /// An entry's error.
    pub(crate) fn entry(path: &[u8], problem: impl Into<String>) -> Self {
        Self::Entry {
            path: shown(path),
            problem: problem.into(),
        }
    }

    /// A reader's error as what it was: the readers below pass their own errors through `io::Error`.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(other) => Self::Decompress(other),
        }
    }
}

impl From<UnpackError> for io::Error {
    fn from(error: UnpackError) -> Self {
        Self::other(error)
    }
}

/// How the action begins whose refusal means ids that the user namespace does not map.
pub(crate) const CHOWN: &str = "set its owner to";

/// Adds action and entry to a system call's error.
pub(crate) trait During<T> {
    fn during(self, action: &'static str, path: &[u8]) -> Result<T, UnpackError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: &'static str, path: &[u8]) -> Result<T, UnpackError> {
        self.map_err(|error| UnpackError::Io {
            action: action.into(),
            path: shown(path),
            source: error.into(),
        })
    }
}

/// A path for a message: lossy and shortened.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().count() <= 200 {
        return text.into_owned();
    }
    let start: String = text.chars().take(200).collect();
    format!("{start}...")
}
