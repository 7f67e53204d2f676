//! Sizes and spans of time as people write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A number of bytes: `512`, `10KiB`, `10MB`, `4GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// A span of time: `30s`, `5m`, `24h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

fn split(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (text[..end].parse().ok(), text[end..].trim())
}

/// Reads a size as people write it: `512`, `10KiB`, `10MB`, `4GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    bytes(text).ok_or_else(|| format!("{text:?} is not a size such as 10GiB"))
}

/// Reads a size.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text.trim());
    let factor = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number?.checked_mul(factor)
}

/// Reads a span.
fn span(text: &str) -> Option<Duration> {
    let (number, unit) = split(text.trim());
    let seconds = match unit {
        "ms" => return number.map(Duration::from_millis),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number?.checked_mul(seconds).map(Duration::from_secs)
}

/// Something that is written as text or as a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Text(String),
}

impl Text {
    fn read(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(from)?.read();
        parse_size(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(from)?.read();
        let read = span(&text).map(Self);
        read.ok_or_else(|| D::Error::custom(format!("{text:?} is not a span of time such as 5m")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans() {
        for (text, expected) in [
            ("512", Some(512)),
            ("4 KiB", Some(4096)),
            ("2GB", Some(2_000_000_000)),
            ("1GiB", Some(1 << 30)),
            ("GiB", None),
            ("1gib", None),
            ("-1", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for (text, expected) in [
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("24h", Some(86400)),
            ("30d", Some(2_592_000)),
            ("30", None),
            ("s", None),
            ("1y", None),
        ] {
            assert_eq!(span(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
