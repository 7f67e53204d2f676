//! Why a node does not start.

use std::path::PathBuf;

use towline_sys::fs::FsError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("prepare {}", path.display())]
    DataDir {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: FsError,
    },
    /// A component does not start.
    #[error("start the {component}")]
    Component {
        /// Its name.
        component: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A component runs and did not become ready in time.
    #[error("the {component} is not ready after {seconds} s")]
    NotReady {
        /// Its name.
        component: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
}

impl Error {
    pub(crate) fn component(
        component: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Component { component, source }
    }
}
