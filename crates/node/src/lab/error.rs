//! Why a scenario cannot be shown.

use towline_sys::fs::FsError;

use super::PublishError;

/// Why a scenario cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine refuses something.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A small disk cannot be made.
    #[error("make a small disk")]
    Disk(#[from] FsError),
    /// A node does not start.
    #[error("start a node")]
    Node(#[from] crate::Error),
    /// The registry's logins cannot be set up.
    #[error("set up the registry's logins")]
    Users(#[from] towline_registry::access::UsersError),
    /// An image cannot be pushed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The API refuses.
    #[error("{what}")]
    Kube {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {seconds} s; the last that was seen: {last}")]
    NotYet {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was there instead.
        last: String,
    },
    /// The pod cannot be explained.
    #[error("explain the pod")]
    Explain(#[from] towline_explain::pod::ExplainError),
    /// The registry client cannot be made.
    #[error("make the registry client")]
    Client(#[from] towline_distribution::OptionsError),
    /// A fix cannot be applied.
    #[error("apply the fix")]
    Apply(#[from] towline_explain::ApplyError),
    /// A command that was printed does not do.
    #[error("{command}: {why}")]
    Typed {
        /// The command, as it was typed.
        command: String,
        /// What came of it.
        why: String,
    },
    /// The answer holds nothing that can be applied.
    #[error("the answer prints no fix that can be applied")]
    NoFix,
}

impl LabError {
    pub(super) fn kube(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kube {
            what,
            source: Box::new(source),
        }
    }
}
