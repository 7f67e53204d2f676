//! `PATCH` in its four forms.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::decode::{self, Checked, media_type};
use super::write::{self, Part};
use super::{Context, reply};
use crate::error::{ApiError, ApiResult};
use crate::patch::{apply, strategic};

/// Operations in one JSON patch at most, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;

enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply {
        config: Value,
        manager: String,
        force: bool,
    },
}

fn parse(context: &Context) -> ApiResult<Patch> {
    let unreadable =
        |error: serde_json::Error| ApiError::bad_request(format!("error decoding patch: {error}"));
    let media = media_type(&context.headers);
    match media {
        "application/json-patch+json" => {
            let patch: json_patch::Patch =
                serde_json::from_slice(&context.body).map_err(unreadable)?;
            if patch.0.len() > MAX_OPERATIONS {
                return Err(ApiError::new(
                    413,
                    "RequestEntityTooLarge",
                    format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}"),
                ));
            }
            Ok(Patch::Json(patch))
        }
        "application/merge-patch+json" => serde_json::from_slice(&context.body)
            .map(Patch::Merge)
            .map_err(unreadable),
        "application/strategic-merge-patch+json" => serde_json::from_slice(&context.body)
            .map(Patch::Strategic)
            .map_err(unreadable),
        "application/apply-patch+yaml" => {
            let manager = context.query.get("fieldManager").ok_or_else(|| {
                ApiError::bad_request("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
            })?;
            let force = context.query.flag("force");
            let config = decode::yaml(&context.body)?;
            let metadata = config.get("metadata");
            if !config.is_object()
                || !matches!(metadata, None | Some(Value::Null | Value::Object(_)))
            {
                return Err(ApiError::bad_request(
                    "the body of an apply is an object, and so is its metadata",
                ));
            }
            Ok(Patch::Apply {
                config,
                manager: manager.to_owned(),
                force,
            })
        }
        other => Err(ApiError::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml (got {other:?})"
        ))),
    }
}

/// Serves a patch of an object or of one of its parts.
pub(super) async fn serve(context: &Context, part: Part) -> ApiResult<Response> {
    let kind = context.target.kind;
    let patch = parse(context)?;
    let warnings = std::sync::Mutex::new(Vec::new());
    let checked = |object: Value| -> ApiResult<Value> {
        let Checked {
            object,
            warnings: found,
        } = decode::check(kind, &context.query, object)?;
        *warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = found;
        Ok(kind.storable(object))
    };
    if let Patch::Apply {
        config,
        manager,
        force,
    } = &patch
    {
        // What does not exist is created by an apply.
        let key = kind.key(context.namespace(), context.name());
        if part == Part::Main && context.app.store.get(&key).is_none() {
            let mut config = config.clone();
            config["metadata"]["name"] = Value::String(context.name().to_owned());
            let object = apply::first(kind, &config, manager, &write::now());
            match write::insert(context, checked(object)?).await {
                Ok(stored) => {
                    return finish(context, StatusCode::CREATED, &stored, warnings.into_inner());
                }
                Err(error) if error.reason == "AlreadyExists" => {}
                Err(error) => return Err(error),
            }
        }
        let stored = write::change(context, part, |current| {
            let current = kind.present(current);
            let applied = apply::onto(kind, &current, config, manager, *force, &write::now())
                .map_err(|conflicts| apply::conflict_error(kind, context.name(), &conflicts))?;
            checked(applied)
        })
        .await?;
        return finish(context, StatusCode::OK, &stored, warnings.into_inner());
    }
    let stored = write::change(context, part, |current| {
        let object = kind.present(current);
        checked(patched(&patch, object, context)?)
    })
    .await?;
    finish(context, StatusCode::OK, &stored, warnings.into_inner())
}

fn patched(patch: &Patch, mut object: Value, context: &Context) -> ApiResult<Value> {
    let failed = |why: String| {
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {why}"),
        )
    };
    match patch {
        Patch::Json(patch) => {
            json_patch::patch(&mut object, patch).map_err(|error| failed(error.to_string()))?;
        }
        Patch::Merge(patch) => {
            if !patch.is_object() {
                return Err(ApiError::bad_request("error decoding patch: not an object"));
            }
            json_patch::merge(&mut object, patch);
        }
        Patch::Strategic(patch) => {
            object = strategic::merge(&object, patch)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
        }
        Patch::Apply { .. } => {
            return Err(ApiError::internal("an apply is not a patch of its own"));
        }
    }
    if object["metadata"]["name"] != *context.name() {
        return Err(ApiError::bad_request(
            "the name of the object may not be changed",
        ));
    }
    Ok(object)
}

fn finish<E>(
    context: &Context,
    status: StatusCode,
    stored: &Value,
    warnings: Result<Vec<String>, E>,
) -> ApiResult<Response> {
    let kind = context.target.kind;
    let mut warnings = warnings.unwrap_or_default();
    write::kept_only(kind, &mut warnings);
    let mut response = reply::object(
        kind,
        &context.headers,
        &context.query,
        status,
        &kind.present(stored),
    )?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}
