//! Errors of the calls: what was attempted on what, and why not, as a gRPC status.
//!
//! The code is `Unknown` where no other is documented: a kubelet then shows the text alone.

use std::error::Error;

use tonic::Status;
use towline_sys::task::chain;

/// Says what was attempted when an error becomes a status.
pub(crate) trait Doing<T> {
    /// `what: error: causes`, code `Unknown`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Status>;

    /// The same with code `InvalidArgument`.
    fn refusing(self, what: impl FnOnce() -> String) -> Result<T, Status>;
}

impl<T, E: Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Status> {
        self.map_err(|e| Status::unknown(format!("{}: {}", what(), chain(&e))))
    }

    fn refusing(self, what: impl FnOnce() -> String) -> Result<T, Status> {
        self.map_err(|e| Status::invalid_argument(format!("{}: {}", what(), chain(&e))))
    }
}
