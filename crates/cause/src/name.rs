//! A cause's name as it arrives from elsewhere.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Cause;

/// The name of a cause that came over a wire or from a file.
///
/// A reader that meets a cause it does not know keeps the name and treats it as [`Cause::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CauseName {
    /// A cause of this vocabulary.
    Known(Cause),
    /// A name that this version does not know, at most 64 characters of it.
    Other(String),
}

impl CauseName {
    /// Reads a name; never fails.
    pub fn parse(name: &str) -> Self {
        Cause::from_name(name)
            .map_or_else(|| Self::Other(name.chars().take(64).collect()), Self::Known)
    }

    /// The cause to act on: [`Cause::Unknown`] for a name that this version does not know.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Known(cause) => *cause,
            Self::Other(_) => Cause::Unknown,
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(cause) => cause.name(),
            Self::Other(name) => name,
        }
    }
}

impl From<Cause> for CauseName {
    fn from(cause: Cause) -> Self {
        Self::Known(cause)
    }
}

impl std::fmt::Display for CauseName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CauseName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CauseName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::parse(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_kept() {
        let name: CauseName = serde_json::from_str("\"MoonPhase\"").unwrap();
        assert_eq!(name.cause(), Cause::Unknown);
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"MoonPhase\"");
        assert_eq!(
            CauseName::parse("TagNotFound"),
            CauseName::Known(Cause::TagNotFound)
        );
    }
}
