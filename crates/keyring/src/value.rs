//! A string that must not be printed.

use std::fmt;

/// A password or token. `Debug` and `Display` print `[redacted]`; the value is reached only by [`Secret::expose`], so
/// that every place that uses it can be found by that name. It is not serialisable on purpose.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is no value: an entry such as `{}` is a credential with an empty password.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credential;

    #[test]
    fn a_secret_prints_redacted_wherever_it_sits() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret}"), "[redacted]");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        let credential = Credential::Basic {
            username: "bob".into(),
            password: secret,
        };
        let printed = format!("{credential:?} {credential:#?} {credential}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("bob"), "{printed}");
    }
}
