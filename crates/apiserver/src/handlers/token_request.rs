//! `serviceaccounts/NAME/token`: a fresh token, bound to what the request names.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Context, decode, list, reply};
use crate::auth::token;
use crate::error::{ApiError, ApiResult, FieldCause};
use crate::kinds::Kind;

const MIN_SECONDS: i64 = 600;
const DEFAULT_SECONDS: i64 = 3600;
/// A token lives a day at most.
const MAX_SECONDS: i64 = 24 * 3600;
const MAX_AUDIENCES: usize = 16;

/// Serves a `TokenRequest`.
pub(super) fn serve(context: &Context) -> ApiResult<Response> {
    let request = decode::value(&context.headers, &context.body)?;
    let account = list::current(context)?.value;
    let spec = &request["spec"];
    let seconds = match spec["expirationSeconds"].as_i64() {
        None => DEFAULT_SECONDS,
        Some(seconds) if seconds >= MIN_SECONDS => seconds.min(MAX_SECONDS),
        Some(seconds) => {
            let cause = FieldCause {
                reason: "FieldValueInvalid",
                field: "spec.expirationSeconds".to_owned(),
                message: format!(
                    "Invalid value: {seconds}: may not specify a duration less than 10 minutes"
                ),
            };
            return Err(ApiError::invalid(
                context.target.kind,
                context.name(),
                &[cause],
            ));
        }
    };
    let mut audiences: Vec<&str> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .take(MAX_AUDIENCES)
        .collect();
    if audiences.is_empty() {
        audiences.push(token::API_AUDIENCE);
    }
    let now = jiff::Timestamp::now();
    let expires = now + jiff::SignedDuration::from_secs(seconds);
    let mut claims = json!({
        "iss": token::ISSUER,
        "sub": format!("system:serviceaccount:{}:{}", context.namespace(), context.name()),
        "aud": audiences, "iat": now.as_second(), "nbf": now.as_second(), "exp": expires.as_second(),
        "jti": uuid::Uuid::new_v4().to_string(),
        "kubernetes.io": {
            "namespace": context.namespace(),
            "serviceaccount": {"name": context.name(), "uid": account["metadata"]["uid"]},
        },
    });
    bind(
        context,
        &spec["boundObjectRef"],
        &mut claims["kubernetes.io"],
    )?;
    let signed = token::sign(&context.app.authority.token_key, &claims)
        .ok_or_else(|| ApiError::internal("the token could not be signed"))?;
    let mut answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": context.name(), "namespace": context.namespace(), "creationTimestamp": super::write::now()},
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": null},
        "status": {"token": signed, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
    });
    answer["spec"]["boundObjectRef"] = spec["boundObjectRef"].clone();
    Ok(reply::json(StatusCode::CREATED, &answer))
}

/// Writes the object that the token is bound to into its claims. A node may ask only for tokens bound to its own pods.
fn bind(context: &Context, reference: &Value, claims: &mut Value) -> ApiResult<()> {
    let accounts = context.target.kind;
    let refuse = |why: &str| Err(ApiError::forbidden(accounts, context.name(), why));
    let name = reference["name"].as_str().unwrap_or_default();
    let uid = reference["uid"].as_str();
    let bound_kind = reference["kind"].as_str().unwrap_or_default();
    if let Some(node) = context.caller.node()
        && bound_kind != "Pod"
    {
        return refuse(&format!(
            "node \"{node}\" requested a token not bound to a pod"
        ));
    }
    let (plural, field) = match bound_kind {
        "" => return Ok(()),
        "Pod" => ("pods", "pod"),
        "Secret" => ("secrets", "secret"),
        other => {
            return Err(ApiError::bad_request(format!(
                "tokens are not bound to objects of kind {other:?}"
            )));
        }
    };
    let kind = Kind::named("", plural);
    let object = context
        .app
        .store
        .get(&kind.key(context.namespace(), name))
        .ok_or_else(|| ApiError::not_found(kind, name))?
        .value;
    if let Some(uid) = uid
        && object["metadata"]["uid"] != uid
    {
        let found = object["metadata"]["uid"].as_str().unwrap_or_default();
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated (found {found})"
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    if plural == "pods" {
        if object["spec"]["serviceAccountName"] != *context.name() {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                context.name()
            )));
        }
        let node_name = object["spec"]["nodeName"].as_str().unwrap_or_default();
        if let Some(node) = context.caller.node()
            && node_name != node
        {
            return refuse(&format!(
                "node \"{node}\" requested a token bound to a pod scheduled on a different node"
            ));
        }
        let nodes = Kind::named("", "nodes");
        if let Some(node) = context.app.store.get(&nodes.key("", node_name)) {
            claims["node"] = json!({"name": node_name, "uid": node.value["metadata"]["uid"]});
        }
    }
    claims[field] = json!({"name": name, "uid": object["metadata"]["uid"]});
    Ok(())
}
