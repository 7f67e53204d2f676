//! Exit codes and the one place where an error is printed.

use std::process::ExitCode;

use crate::output;

/// Everything went well; for `why` and `check`: every image pulls.
pub(crate) const OK: u8 = 0;
/// The command failed; for `why` and `check`: something is broken.
pub(crate) const BROKEN: u8 = 1;
/// For `why` and `check`: it could not be told.
pub(crate) const UNDECIDED: u8 = 2;
/// The command line is wrong (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;

/// An error with the one thing that helps.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Hinted {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// An error that ends with a hint.
pub(crate) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        message: message.into(),
        hint: hint.into(),
    })
}

/// A wrong command line: exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints an error with its chain and hint, and gives the exit code.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    failed_with(error, BROKEN)
}

/// The same, with another code for what is no wrong command line.
pub(crate) fn failed_with(error: &anyhow::Error, code: u8) -> ExitCode {
    if let Some(io) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        && io.kind() == std::io::ErrorKind::BrokenPipe
    {
        return ExitCode::from(OK);
    }
    output::error(error);
    let usage = error.chain().any(<dyn std::error::Error>::is::<Usage>);
    ExitCode::from(if usage { USAGE } else { code })
}
