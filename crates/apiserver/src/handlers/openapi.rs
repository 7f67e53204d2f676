//! The smallest `OpenAPI` v3 that clients need: per kind, a patch that takes `fieldValidation`, and a schema by name.
//!
//! With it `kubectl apply` leaves the validation of fields to this server.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::reply;
use crate::error::{ApiError, ApiResult};
use crate::kinds::{KINDS, Kind, group_versions};

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Serves `/openapi/v3` and the documents below it.
pub(super) fn page(path: &str) -> ApiResult<Response> {
    let rest = path.trim_start_matches("/openapi/v3").trim_matches('/');
    if rest.is_empty() {
        let paths: serde_json::Map<String, Value> = group_versions()
            .into_iter()
            .map(|(group, version)| {
                let root = root(group, version);
                let hash = env!("CARGO_PKG_VERSION");
                let url = format!("/openapi/v3/{root}?hash={hash}");
                (root, json!({"serverRelativeURL": url}))
            })
            .collect();
        return Ok(reply::json(StatusCode::OK, &json!({"paths": paths})));
    }
    let (group, version) = group_versions()
        .into_iter()
        .find(|(group, version)| root(group, version) == rest)
        .ok_or_else(ApiError::no_such_path)?;
    Ok(reply::json(StatusCode::OK, &document(group, version)))
}

fn document(group: &str, version: &str) -> Value {
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    for kind in KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
    {
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("/{}{scope}/{}/{{name}}", root(group, version), kind.plural);
        paths.insert(path, item(kind));
        schemas.insert(schema_name(kind), schema(kind));
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn schema_name(kind: &Kind) -> String {
    let group = kind
        .group
        .split('.')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}

fn item(kind: &Kind) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .iter()
        .map(|name| {
            let schema = if *name == "force" {
                "boolean"
            } else {
                "string"
            };
            json!({"name": name, "in": "query", "schema": {"type": schema, "uniqueItems": true}})
        })
        .collect();
    let content =
        json!({"schema": {"$ref": format!("#/components/schemas/{}", schema_name(kind))}});
    json!({
        "get": {"operationId": format!("read{}", kind.kind), "x-kubernetes-action": "get",
            "x-kubernetes-group-version-kind": gvk(kind),
            "responses": {"200": {"description": "OK", "content": {"application/json": content}}}},
        "patch": {"operationId": format!("patch{}", kind.kind), "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": gvk(kind), "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": content}}}},
    })
}

fn schema(kind: &Kind) -> Value {
    let text = |what: &str| json!({"type": "string", "description": what});
    json!({
        "type": "object",
        "description": format!("{} of {}. Fields below the top level are checked by the server but not described here.",
            kind.kind, kind.api_version()),
        "properties": {
            "apiVersion": text("The version of this object's schema."), "kind": text("The kind of this object."),
            "metadata": {"type": "object", "description": "Name, namespace, labels, annotations, owner references."},
            "spec": {"type": "object", "description": "What is wanted.", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"type": "object", "description": "What is.", "x-kubernetes-preserve-unknown-fields": true},
        },
        "x-kubernetes-group-version-kind": [gvk(kind)],
    })
}
