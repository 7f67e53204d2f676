//! What can go wrong in the store, and which cause that is.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use towline_cause::{Cause, Failure, Step};
use towline_oci::Digest;
use towline_sys::format::FormatError;
use towline_sys::fs::FsError;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store.
    #[error("the store at {} is in use by {holder}", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
        /// Who may hold it: process id and program, as that process wrote them.
        holder: String,
    },
    /// The directory is of another kind or version.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The content is not what its digest says.
    #[error("{what} has digest {actual}, not {expected}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// The content is longer or shorter than declared.
    #[error("{digest} has {} {actual} bytes, {declared} were declared", if actual > declared { "at least" } else { "only" })]
    Size {
        /// The content.
        digest: Digest,
        /// Bytes that were declared.
        declared: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// Another download writes the same spool.
    #[error("{0} is being downloaded already")]
    Busy(Digest),
    /// Something that a record needs is gone.
    #[error("{what} {digest} is not in the store any more")]
    Gone {
        /// `layer` or `blob`.
        what: &'static str,
        /// Which.
        digest: Digest,
    },
    /// No image has this id.
    #[error("no image {0}")]
    NoImage(Digest),
    /// The config of a recorded image does not parse.
    #[error("the config of image {id} is damaged")]
    Config {
        /// The image.
        id: Digest,
        /// What the parser says.
        #[source]
        source: Box<towline_oci::ImageConfigError>,
    },
    /// A lease's owner cannot be a file name.
    #[error(
        "{0:?} cannot own a lease: 1 to 128 letters, digits, `-`, `_` and `.` are allowed, and no `.` first"
    )]
    Owner(String),
    /// The database of records failed.
    #[error("the image records: {action}")]
    Records {
        /// What was attempted.
        action: &'static str,
        /// The database's answer.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record or a lease on disk does not parse.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    /// The cause that a pull which fails with this has.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Mismatch { .. } | Self::Size { .. } => Cause::DigestMismatch,
            Self::Gone { .. } | Self::NoImage(_) => Cause::ImageCollected,
            Self::InUse { .. } | Self::Format(_) | Self::Owner(_) => Cause::RuntimeMisconfigured,
            Self::Busy(_) => Cause::PullStalled,
            Self::Damaged { .. } | Self::Config { .. } => Cause::ContentStoreCorrupt,
            Self::Fs(error) => io_cause(&error.source).unwrap_or(Cause::DiskError),
            Self::Records { source, .. } => match source.as_ref() {
                redb::Error::Io(error) => io_cause(error).unwrap_or(Cause::DiskError),
                redb::Error::PreviousIo => Cause::DiskError,
                _ => Cause::ContentStoreCorrupt,
            },
        }
    }

    /// A failure of `step`; `detail` says what was attempted.
    pub fn into_failure(self, step: Step, detail: impl Into<String>) -> Failure {
        let step = match self {
            Self::Mismatch { .. } | Self::Size { .. } => Step::Verify,
            _ => step,
        };
        Failure::new(self.cause(), step, detail).because(self)
    }
}

/// The cause that an I/O error of the node's disk stands for, where it stands for one: no space, read only, a bad disk, too many open files.
pub fn io_cause(error: &io::Error) -> Option<Cause> {
    if let Some(code) = error.raw_os_error() {
        return errno_cause(Errno::from_raw_os_error(code));
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Cause::NoSpaceLeft),
        io::ErrorKind::ReadOnlyFilesystem => Some(Cause::FilesystemReadOnly),
        _ => error
            .get_ref()
            .and_then(|inner| chain_cause(inner as &(dyn Error + 'static))),
    }
}

fn chain_cause(error: &(dyn Error + 'static)) -> Option<Cause> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<io::Error>().and_then(io_cause) {
            return Some(cause);
        }
        next = error.source();
    }
    None
}

fn errno_cause(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Some(Cause::NoSpaceLeft),
        Errno::ROFS => Some(Cause::FilesystemReadOnly),
        Errno::IO => Some(Cause::DiskError),
        Errno::MFILE | Errno::NFILE => Some(Cause::TooManyOpenFiles),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_have_their_cause_through_every_wrapping() {
        for (errno, want) in [
            (Errno::NOSPC, Some(Cause::NoSpaceLeft)),
            (Errno::DQUOT, Some(Cause::NoSpaceLeft)),
            (Errno::ROFS, Some(Cause::FilesystemReadOnly)),
            (Errno::IO, Some(Cause::DiskError)),
            (Errno::MFILE, Some(Cause::TooManyOpenFiles)),
            (Errno::NOENT, None),
        ] {
            assert_eq!(io_cause(&errno.into()), want, "{errno}");
            let wrapped = io::Error::from(FsError::new("write", "/x", errno));
            assert_eq!(io_cause(&wrapped), want, "{errno}");
            let twice = io::Error::other(wrapped);
            assert_eq!(io_cause(&twice), want, "{errno}");
        }
    }
}
