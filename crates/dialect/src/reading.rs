//! What a text says.

use towline_cause::{Cause, Confidence, Step};

/// What a message says about a failed pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The cause; [`Cause::Unknown`] when the text decides none.
    pub cause: Cause,
    /// Where the pull stopped, as far as the text says so. It may be known although the cause is not.
    pub step: Option<Step>,
    /// Scheme, host and port of the endpoint that failed, where the text names it.
    pub endpoint: Option<String>,
    /// [`Confidence::Stated`] when the words allow one cause only, [`Confidence::Likely`] when they fit it best,
    /// [`Confidence::Unknown`] when there is none. A text proves nothing.
    pub confidence: Confidence,
    /// Other causes that the text leaves open, best first.
    pub alternatives: Vec<Cause>,
    /// The image that the text names, as written there.
    pub image: Option<String>,
    /// The HTTP status that the text names.
    pub status: Option<u16>,
    /// What the server said, in its own words.
    pub server_message: Option<String>,
}

impl Reading {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self {
            cause: Cause::Unknown,
            step: None,
            endpoint: None,
            confidence: Confidence::Unknown,
            alternatives: Vec::new(),
            image: None,
            status: None,
            server_message: None,
        }
    }
}
