//! Bodies in Kubernetes' protobuf form.

use serde_json::Value;

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// There is no schema for this kind.
    Unknown(String),
    /// The bytes are not what they claim to be.
    Malformed(&'static str),
}

/// Decodes an enveloped object into its JSON form.
pub(crate) fn decode(_body: &[u8]) -> Result<Value, DecodeError> {
    Err(DecodeError::Unknown("anything".to_owned()))
}
