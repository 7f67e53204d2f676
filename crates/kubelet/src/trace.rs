//! The identity of one pull attempt, from the kubelet through the runtime to the registry.

use jiff::Timestamp;

/// An attempt's id and its place in a distributed trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// A uuid (version 7), the same in logs, annotation, CRI metadata and HTTP headers.
    pub(crate) attempt: String,
    /// W3C `traceparent`.
    pub(crate) traceparent: String,
}

impl Trace {
    /// A new attempt that begins at `now`.
    pub(crate) fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
        let stamp = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos);
        let id = uuid::Uuid::new_v7(stamp);
        Self {
            traceparent: format!("00-{}-{:016x}-01", id.simple(), fastrand::u64(1..)),
            attempt: id.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_has_its_fixed_form() {
        let trace = Trace::new(Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(trace.traceparent.len(), 55);
        assert_eq!(trace.attempt.as_bytes()[14], b'7');
        assert_ne!(
            trace,
            Trace::new(Timestamp::from_second(1_700_000_000).unwrap())
        );
    }
}
