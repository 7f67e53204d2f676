//! Who asks: the attempt and the trace that travel in every request's headers.

use http::{HeaderMap, HeaderValue};

/// Ids that tie a request to the pull it belongs to. Empty parts are not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Sent as `X-Towline-Attempt`.
    pub attempt: String,
    /// Sent as `traceparent` (W3C Trace Context).
    pub traceparent: String,
}

impl Trace {
    /// Adds the headers. A part that cannot stand in a header, or is longer than 256 bytes, is left out.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            ("x-towline-attempt", &self.attempt),
            ("traceparent", &self.traceparent),
        ] {
            if value.is_empty() || value.len() > 256 {
                continue;
            }
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}
