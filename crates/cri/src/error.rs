//! A failed pull inside a gRPC status: `google.rpc.Status` with one `ErrorInfo` in `grpc-status-details-bin`.
//!
//! `reason` is the cause's name, `domain` is [`DOMAIN`], `metadata` holds `step`, `endpoint`, `image` and `attempt`.

use std::collections::HashMap;

use prost::Message;
use tonic::{Code, Status};
use towline_cause::{CauseName, Failure, Step};

/// Whose reasons these are.
pub const DOMAIN: &str = "towline.dev";

/// The type by which an `ErrorInfo` is found among the details.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// Details beyond this size, in bytes, are not read. gRPC's own limit for headers is lower.
const MAX_DETAILS: usize = 64 * 1024;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

/// What the details of a failed pull hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Why, known to this version or not.
    pub cause: CauseName,
    /// Where it stopped, where that is one of [`Step`].
    pub step: Option<Step>,
    /// Scheme, host and port of the endpoint that failed.
    pub endpoint: Option<String>,
    /// The image as it was asked for.
    pub image: Option<String>,
    /// The attempt id.
    pub attempt: Option<String>,
}

/// A status with the failure's cause, step, endpoint, and the attempt id.
pub fn attach(code: Code, text: impl Into<String>, failure: &Failure, attempt: &str) -> Status {
    attach_image(code, text, failure, None, attempt)
}

/// As [`attach`], and names the image that was asked for.
pub fn attach_image(
    code: Code,
    text: impl Into<String>,
    failure: &Failure,
    image: Option<&str>,
    attempt: &str,
) -> Status {
    let pairs = [
        ("step", Some(failure.step().name())),
        ("endpoint", failure.endpoint()),
        ("image", image),
        ("attempt", Some(attempt)),
    ];
    let info = ErrorInfo {
        reason: failure.cause().name().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    };
    let text = text.into();
    let status = RpcStatus {
        code: code as i32,
        message: text.clone(),
        details: vec![prost_types::Any {
            type_url: ERROR_INFO.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    Status::with_details(code, text, status.encode_to_vec().into())
}

/// Reads the details back. `None` where another runtime answered or the details are damaged.
pub fn read(status: &Status) -> Option<Details> {
    let bytes = status.details();
    if bytes.is_empty() || bytes.len() > MAX_DETAILS {
        return None;
    }
    let mut info = RpcStatus::decode(bytes)
        .ok()?
        .details
        .into_iter()
        .filter(|any| any.type_url == ERROR_INFO)
        .filter_map(|any| ErrorInfo::decode(any.value.as_slice()).ok())
        .find(|info| info.domain == DOMAIN)?;
    let mut take = |key: &str| info.metadata.remove(key);
    Some(Details {
        step: take("step").as_deref().and_then(Step::from_name),
        endpoint: take("endpoint"),
        image: take("image"),
        attempt: take("attempt"),
        cause: CauseName::parse(&info.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_cause::Cause;

    #[test]
    fn reads_back_what_it_wrote() {
        for cause in Cause::ALL {
            let failure =
                Failure::new(cause, Step::Resolve, "words").at("https://registry.example:5000");
            let status = attach_image(Code::NotFound, "text", &failure, Some("a/b:c"), "0192");
            assert_eq!(status.code(), Code::NotFound);
            assert_eq!(status.message(), "text");
            assert_eq!(
                read(&status),
                Some(Details {
                    cause: cause.into(),
                    step: Some(Step::Resolve),
                    endpoint: Some("https://registry.example:5000".to_owned()),
                    image: Some("a/b:c".to_owned()),
                    attempt: Some("0192".to_owned()),
                })
            );
        }
    }

    #[test]
    fn foreign_and_damaged_details_are_none() {
        let info = ErrorInfo {
            reason: "QUOTA".to_owned(),
            domain: "example.com".to_owned(),
            metadata: HashMap::new(),
        };
        let foreign = RpcStatus {
            code: 5,
            message: String::new(),
            details: vec![prost_types::Any {
                type_url: ERROR_INFO.to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        for details in [vec![], vec![0xff; 40], foreign.encode_to_vec()] {
            let status = Status::with_details(Code::Unknown, "text", details.into());
            assert_eq!(read(&status), None);
        }
    }
}
