//! Get and list.

use axum::response::Response;
use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Context, reply};
use crate::error::{ApiError, ApiResult};
use crate::request::{Form, accepted};
use crate::selector::{FieldSelector, LabelSelector};
use crate::storage::Stored;
use crate::table;

/// One object.
pub(super) fn get(context: &Context) -> ApiResult<Response> {
    let object = context.target.kind.present(&current(context)?.value);
    reply::object(
        context.target.kind,
        &context.headers,
        &context.query,
        StatusCode::OK,
        &object,
    )
}

/// The stored object that the path names.
pub(super) fn current(context: &Context) -> ApiResult<Stored> {
    let kind = context.target.kind;
    context
        .app
        .store
        .get(&kind.key(context.namespace(), context.name()))
        .ok_or_else(|| ApiError::not_found(kind, context.name()))
}

/// The selectors of a list or watch.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) labels: LabelSelector,
    pub(super) fields: FieldSelector,
    /// Set when one object is watched by its path.
    pub(super) name: Option<String>,
}

impl Filter {
    pub(super) fn of(context: &Context) -> ApiResult<Self> {
        let text = |name| context.query.get(name).unwrap_or_default();
        Ok(Self {
            labels: LabelSelector::parse(text("labelSelector"))?,
            fields: FieldSelector::parse(context.target.kind, text("fieldSelector"))?,
            name: context.target.name.clone(),
        })
    }

    pub(super) fn matches(&self, context: &Context, stored: &Value) -> bool {
        self.labels.matches(stored)
            && self.fields.matches(context.target.kind, stored)
            && self
                .name
                .as_ref()
                .is_none_or(|name| stored["metadata"]["name"] == *name)
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

/// Where a list goes on: the revision of its first page and the last key given.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    revision: u64,
    key: String,
}

impl Continue {
    fn encode(&self) -> String {
        let text = json!({"v": "towline/v1", "rv": self.revision, "key": self.key}).to_string();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    /// The token must be for this very list: its key lies under `prefix`.
    fn decode(text: &str, prefix: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let key = value["key"].as_str()?.to_owned();
        (value["v"] == "towline/v1" && key.starts_with(prefix)).then_some(Self {
            revision: value["rv"].as_u64()?,
            key,
        })
    }
}

/// Checks the options of a list as Kubernetes does; gives the revision to list at and the token.
fn options(context: &Context, prefix: &str) -> ApiResult<(Option<u64>, Option<Continue>)> {
    let query = &context.query;
    let matching = query.get("resourceVersionMatch");
    let version = query.number("resourceVersion")?;
    if query.get("sendInitialEvents").is_some() {
        return Err(ApiError::invalid_options(
            "sendInitialEvents",
            "Forbidden: sendInitialEvents is forbidden for list",
        ));
    }
    if let Some(token) = query.get("continue") {
        if matching.is_some() {
            return Err(ApiError::invalid_options(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        let token = Continue::decode(token, prefix)
            .ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
        return Ok((Some(token.revision), Some(token)));
    }
    let newest = context.app.store.revision();
    if version.is_some_and(|version| version > newest) {
        return Err(too_large(version.unwrap_or_default(), newest));
    }
    match (matching, version) {
        (None | Some("NotOlderThan"), Some(_)) | (None, None) => Ok((None, None)),
        (Some("Exact"), Some(version)) if version > 0 => Ok((Some(version), None)),
        (Some("Exact"), Some(_)) => Err(ApiError::invalid_options(
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some(_), None) => Err(ApiError::invalid_options(
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some(other), _) => Err(ApiError::invalid_options(
            "resourceVersionMatch",
            &format!(
                "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        )),
    }
}

/// 504 for a revision that has not happened yet.
pub(super) fn too_large(asked: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut error = ApiError::new(504, "Timeout", format!("Timeout: {message}"));
    error.details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": message}], "retryAfterSeconds": 1});
    error
}

/// Objects of a collection.
pub(super) fn list(context: &Context) -> ApiResult<Response> {
    let form = accepted(&context.headers)?;
    let kind = context.target.kind;
    let filter = Filter::of(context)?;
    let prefix = kind.prefix(context.target.namespace.as_deref());
    let (at, token) = options(context, &prefix)?;
    let (objects, revision) = context.app.store.list(&prefix, at).map_err(|expired| {
        if token.is_some() {
            ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new \
                 list without the continue parameter.",
            )
        } else {
            ApiError::expired(format!("too old resource version: {} ({})", at.unwrap_or_default(), expired.oldest))
        }
    })?;
    let bound = context.app.limits.list;
    let limit = context.query.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .map_or(bound, |limit| limit.min(bound));
    let start = token.map_or(0, |token| {
        objects.partition_point(|(key, _)| **key <= *token.key)
    });
    let mut items: Vec<Value> = Vec::new();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let mut last: Option<&str> = None;
    for (at, (key, stored)) in objects.iter().enumerate().skip(start) {
        if !filter.matches(context, &stored.value) {
            continue;
        }
        if items.len() == limit {
            if let Some(last) = last {
                metadata["continue"] = json!(
                    Continue {
                        revision,
                        key: last.to_owned()
                    }
                    .encode()
                );
            }
            if filter.is_empty() {
                metadata["remainingItemCount"] = json!(objects.len() - at);
            }
            break;
        }
        items.push(kind.present(&stored.value));
        last = Some(key);
    }
    Ok(reply::json(
        StatusCode::OK,
        &collected(context, form, &items, &metadata),
    ))
}

fn collected(context: &Context, form: Form, items: &[Value], metadata: &Value) -> Value {
    let kind = context.target.kind;
    match form {
        Form::Table => {
            let include = table::Include::of(&context.query);
            let rows: Vec<Value> = items
                .iter()
                .map(|item| table::row(kind, item, include))
                .collect();
            table::table(kind, &rows, metadata, true)
        }
        Form::Partial => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "items": items.iter().map(reply::partial).collect::<Vec<_>>(),
        }),
        Form::Json | Form::Discovery(_) => json!({
            "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_for_one_list() {
        let token = Continue {
            revision: 7,
            key: "core/pods/a/x".to_owned(),
        };
        assert_eq!(Continue::decode(&token.encode(), "core/pods/"), Some(token));
        let token = Continue {
            revision: 7,
            key: "core/secrets/a/x".to_owned(),
        };
        assert_eq!(Continue::decode(&token.encode(), "core/pods/"), None);
        for bad in ["", "!!!", "e30", "bnVsbA"] {
            assert_eq!(Continue::decode(bad, ""), None, "{bad}");
        }
    }
}
