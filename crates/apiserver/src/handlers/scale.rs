//! The `scale` subresource: replicas, and nothing else, of a workload.

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::decode::{self, media_type};
use super::write::{self, Part};
use super::{Context, list, reply};
use crate::error::{ApiError, ApiResult};

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let selector = &object["spec"]["selector"]["matchLabels"];
    let pairs: Vec<String> = selector
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": pairs.join(",")},
    })
}

/// Serves get, update and patch.
pub(super) async fn serve(context: &Context, method: &Method) -> ApiResult<Response> {
    if *method == Method::GET {
        return Ok(reply::json(
            StatusCode::OK,
            &scale_of(&list::current(context)?.value),
        ));
    }
    let body: Value = match media_type(&context.headers) {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(&context.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            let mut scale = scale_of(&list::current(context)?.value);
            json_patch::patch(&mut scale, &patch)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            scale
        }
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            serde_json::from_slice(&context.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?
        }
        _ if *method == Method::PUT => decode::value(&context.headers, &context.body)?,
        other => {
            return Err(ApiError::unsupported_media(format!(
                "no scale is patched with {other:?}"
            )));
        }
    };
    let replicas = body["spec"]["replicas"].as_i64();
    let version = body["metadata"]["resourceVersion"].clone();
    let stored = write::change(context, Part::Main, |current| {
        let mut next = current.clone();
        if let Some(replicas) = replicas {
            next["spec"]["replicas"] = json!(replicas);
        }
        if version.is_string() {
            next["metadata"]["resourceVersion"] = version.clone();
        }
        Ok(next)
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &scale_of(&stored)))
}
