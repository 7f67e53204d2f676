//! From a body to an object: JSON, YAML or protobuf, and the checks of `fieldValidation`.

use http::{HeaderMap, header};
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;
use crate::protobuf;
use crate::request::Query;

/// The media type of a body, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map_or("", str::trim)
}

/// The body as a JSON value.
pub(super) fn value(headers: &HeaderMap, body: &[u8]) -> ApiResult<Value> {
    match media_type(headers) {
        "application/json" | "" | "*/*" => serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type JSON): {error}"
            ))
        }),
        "application/yaml" => yaml(body),
        "application/vnd.kubernetes.protobuf" => {
            protobuf::decode(body).map_err(|error| match error {
                protobuf::DecodeError::Unknown(what) => ApiError::unsupported_media(format!(
                    "no protobuf schema of {what} is served, only application/json"
                )),
                protobuf::DecodeError::Malformed(why) => ApiError::bad_request(format!(
                    "the object provided is unrecognized (must be of type protobuf): {why}"
                )),
            })
        }
        other => Err(ApiError::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
        ))),
    }
}

/// A YAML body as JSON.
pub(super) fn yaml(body: &[u8]) -> ApiResult<Value> {
    let text =
        std::str::from_utf8(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    serde_saphyr::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}

/// An object checked against its type: what the type does not know is gone, with what is to be said about it.
pub(super) struct Checked {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// Checks `apiVersion`, `kind` and every field of an object given by a client.
pub(super) fn check(kind: &Kind, query: &Query, mut object: Value) -> ApiResult<Checked> {
    if !object.is_object() {
        return Err(ApiError::bad_request(
            "the object provided is unrecognized: it is not an object",
        ));
    }
    let version = kind.api_version();
    for (field, wanted) in [("apiVersion", version.as_str()), ("kind", kind.kind)] {
        match object.get(field).and_then(Value::as_str) {
            None | Some("") => object[field] = Value::String(wanted.to_owned()),
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the data ({found}) does not match the expected {field} ({wanted})"
                )));
            }
        }
    }
    let typed = (kind.typed)(object.clone()).map_err(|error| {
        let (name, version) = (kind.kind, kind.version);
        ApiError::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {name}: {error}"
        ))
    })?;
    let mut unknown = Vec::new();
    lost(&object, &typed, "", &mut unknown);
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        match query.get("fieldValidation") {
            Some("Ignore") => {}
            Some("Strict") => {
                let (name, version) = (kind.kind, kind.version);
                let list = unknown
                    .iter()
                    .map(|field| format!("unknown field \"{field}\""))
                    .collect::<Vec<_>>();
                return Err(ApiError::bad_request(format!(
                    "{name} in version \"{version}\" cannot be handled as a {name}: strict decoding error: {}",
                    list.join(", ")
                )));
            }
            _ => {
                warnings = unknown
                    .iter()
                    .map(|field| format!("unknown field \"{field}\""))
                    .collect();
            }
        }
    }
    Ok(Checked {
        object: typed,
        warnings,
    })
}

/// Paths of fields that the typed form does not have.
fn lost(given: &Value, typed: &Value, path: &str, found: &mut Vec<String>) {
    if found.len() >= 32 {
        return;
    }
    match (given, typed) {
        (Value::Object(given), Value::Object(typed)) => {
            for (key, value) in given {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match typed.get(key) {
                    Some(other) => lost(value, other, &path, found),
                    None if value.is_null() => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(typed)) => {
            for (at, (value, other)) in given.iter().zip(typed).enumerate() {
                lost(value, other, &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_found_dropped_or_refused() {
        let pods = Kind::named("", "pods");
        let pod = json!({"metadata": {"name": "x", "labels": {"any": "thing"}},
            "spec": {"foo": 1, "containers": [{"name": "c", "imagee": "x", "command": null}]}});
        let error = check(
            pods,
            &Query::parse(Some("fieldValidation=Strict")),
            pod.clone(),
        )
        .err()
        .unwrap();
        assert_eq!(error.code, 400);
        assert!(error.message.ends_with(
            "strict decoding error: unknown field \"spec.foo\", unknown field \"spec.containers[0].imagee\""));
        let checked = check(pods, &Query::default(), pod.clone()).unwrap();
        assert_eq!(checked.warnings.len(), 2);
        assert!(checked.object["spec"].get("foo").is_none());
        assert!(
            check(pods, &Query::parse(Some("fieldValidation=Ignore")), pod)
                .unwrap()
                .warnings
                .is_empty()
        );
        assert!(check(pods, &Query::default(), json!({"kind": "Secret"})).is_err());
        let error = check(pods, &Query::default(), json!({"spec": {"containers": 5}}))
            .err()
            .unwrap();
        assert!(
            error
                .message
                .starts_with("Pod in version \"v1\" cannot be handled as a Pod: ")
        );
    }
}
