//! Request metadata that Towline's kubelet sends and its runtime reads. Other peers ignore it.

use tonic::metadata::{AsciiMetadataValue, MetadataMap};

/// The key of the attempt id: the same id appears in the log lines of kubelet, runtime and registry.
pub const ATTEMPT: &str = "x-towline-attempt";

/// The key of the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// Values longer than this are treated as absent.
const MAX_VALUE: usize = 128;

/// Writes attempt id and trace context. A value that cannot be a header is left out.
pub fn write(map: &mut MetadataMap, attempt: &str, traceparent: &str) {
    for (key, value) in [(ATTEMPT, attempt), (TRACEPARENT, traceparent)] {
        if let (true, Ok(value)) = (accepted(value), AsciiMetadataValue::try_from(value)) {
            map.insert(key, value);
        }
    }
}

/// The attempt id that came with a request.
pub fn attempt(map: &MetadataMap) -> Option<&str> {
    read(map, ATTEMPT)
}

/// The trace context that came with a request.
pub fn traceparent(map: &MetadataMap) -> Option<&str> {
    read(map, TRACEPARENT)
}

fn read<'a>(map: &'a MetadataMap, key: &str) -> Option<&'a str> {
    map.get(key)?.to_str().ok().filter(|v| accepted(v))
}

/// These values go on into HTTP headers and logs, so only plain characters are taken.
fn accepted(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= MAX_VALUE
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_values_travel() {
        let mut map = MetadataMap::new();
        write(&mut map, "0192-ab", "00-4bf9-00f0-01");
        assert_eq!(attempt(&map), Some("0192-ab"));
        assert_eq!(traceparent(&map), Some("00-4bf9-00f0-01"));
        let mut map = MetadataMap::new();
        write(&mut map, "a b\r\nx: y", &"a".repeat(129));
        assert!(map.is_empty());
    }
}
