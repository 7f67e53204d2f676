//! How sure an answer is.

use serde::{Deserialize, Serialize};

/// How sure an answer about a cause is, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The evidence decides nothing.
    Unknown,
    /// The evidence fits this cause best and leaves others open.
    Likely,
    /// The failing party said so in words that allow one cause only.
    Stated,
    /// A probe showed it, from the node's own view or through a fact that is the same from everywhere.
    Proven,
}

impl Confidence {
    /// The name used in JSON and in text: `unknown`, `likely`, `stated` or `proven`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Likely => "likely",
            Self::Stated => "stated",
            Self::Proven => "proven",
        }
    }
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
