//! Repository and tag names, as the distribution specification spells them.
//!
//! A name that got through here is safe as a path below the registry's directory: no component is
//! empty, begins with a dot or an underscore, or holds a separator.

use std::fmt;

/// The longest repository name, in bytes.
const NAME_LIMIT: usize = 255;
/// The longest tag, in bytes.
const TAG_LIMIT: usize = 128;

/// The name of a repository: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` with `/` between such parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// A name that the grammar does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {name:?}")]
pub struct NameError {
    what: &'static str,
    /// What was asked for, cut short.
    pub(crate) name: String,
}

impl Repository {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() <= NAME_LIMIT && !text.is_empty() && text.split('/').all(is_component) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "repository name",
            name: shortened(text),
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    /// Reads a tag.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut bytes = text.bytes();
        let first = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if first && rest && text.len() <= TAG_LIMIT {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "tag",
            name: shortened(text),
        })
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    let separators = bytes
        .split(|&byte| alphanumeric(byte))
        .filter(|part| !part.is_empty());
    let mut separators = separators
        .map(|part| matches!(part, b"." | b"_" | b"__") || part.iter().all(|&byte| byte == b'-'));
    separators.all(|good| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in [
            "a",
            "a/b",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "0",
            "library/nginx",
            "blobs/uploads",
            "a/".repeat(127).trim_end_matches('/'),
        ] {
            assert!(Repository::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            ".",
            "..",
            "a/..",
            "../a",
            ".a",
            "_a",
            "a_",
            "a..b",
            "a___b",
            "a-_b",
            "a\\b",
            "a b",
            "a%2fb",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["latest", "1.0", "_x", "V1-rc.2", &"a".repeat(128)] {
            assert!(Tag::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a:b", "..", "ä", &"a".repeat(129)] {
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }
}
