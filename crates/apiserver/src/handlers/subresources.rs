//! Subresources: status, finalize, binding, eviction; scale, log and token live next door.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::write::{self, Part};
use super::{Context, decode, delete, list, logs, node_proxy, patch, reply, scale, token_request};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;
use crate::request::{Query, Target};

/// Serves a request about a subresource.
pub(super) async fn serve(context: Context, method: &Method) -> ApiResult<Response> {
    let kind = context.target.kind;
    let subresource = context.target.subresource.clone().unwrap_or_default();
    match (kind.plural, subresource.as_str(), method.as_str()) {
        (_, "status", "GET" | "HEAD") if kind.status => list::get(&context),
        (_, "status", "PUT") if kind.status => write::update(&context, Part::Status).await,
        (_, "status", "PATCH") if kind.status => patch::serve(&context, Part::Status).await,
        (_, "scale", "GET" | "PUT" | "PATCH") if kind.scale => scale::serve(&context, method).await,
        ("namespaces", "finalize", "PUT") => write::update(&context, Part::Finalize).await,
        ("pods", "binding", "POST") => bind(&context).await,
        ("pods", "eviction", "POST") => evict(&context).await,
        ("pods", "log", "GET") => logs::serve(context).await,
        ("nodes", "proxy", "GET" | "POST") => node_proxy::serve(context, method).await,
        ("serviceaccounts", "token", "POST") => token_request::serve(&context),
        ("pods", "exec" | "attach" | "portforward" | "proxy", _) => Err(ApiError::new(
            501,
            "NotImplemented",
            format!("pods/{subresource} is not served by this API server"),
        )),
        _ => {
            let known = (kind.status && subresource == "status")
                || (kind.scale && subresource == "scale")
                || kind
                    .subresources
                    .iter()
                    .any(|(name, _, _)| *name == subresource);
            Err(if known {
                ApiError::method_not_allowed()
            } else {
                ApiError::no_such_path()
            })
        }
    }
}

fn success() -> Response {
    reply::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

async fn bind(context: &Context) -> ApiResult<Response> {
    let binding = decode::value(&context.headers, &context.body)?;
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() || !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        return Err(ApiError::bad_request(
            "a binding must have target.kind Node and target.name",
        ));
    }
    let pods = context.target.kind;
    let name = context.name().to_owned();
    let uid = binding["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    change_raw(context, |pod| {
        let refuse = |why: String| Err(ApiError::conflict(pods, &name, &why));
        if !uid.is_empty() && pod["metadata"]["uid"] != uid {
            return Err(write::precondition(pods, &name, &uid, pod));
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return refuse(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            ));
        }
        if pod["spec"]["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty())
        {
            return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        if let Some(assigned) = pod["spec"]["nodeName"]
            .as_str()
            .filter(|assigned| !assigned.is_empty())
        {
            return refuse(format!(
                "pod {name} is already assigned to node \"{assigned}\""
            ));
        }
        let mut next = pod.clone();
        next["spec"]["nodeName"] = json!(node);
        for (key, value) in binding["metadata"]["annotations"]
            .as_object()
            .into_iter()
            .flatten()
        {
            next["metadata"]["annotations"][key] = value.clone();
        }
        let mut conditions = next["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(
            json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": write::now()}),
        );
        next["status"]["conditions"] = json!(conditions);
        Ok(next)
    })
    .await?;
    Ok(success())
}

/// `POST` of `bindings`: the pod is named in the body.
pub(super) async fn bind_by_body(
    app: &Arc<App>,
    caller: &Caller,
    namespace: Option<&str>,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> ApiResult<Response> {
    let binding = decode::value(headers, body)?;
    let name = binding["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let context = Context {
        app: Arc::clone(app),
        caller: caller.clone(),
        target: Target {
            kind: Kind::named("", "pods"),
            namespace: namespace.map(str::to_owned),
            name: Some(name),
            subresource: Some("binding".to_owned()),
            path: None,
        },
        query: query.clone(),
        headers: headers.clone(),
        body: body.clone(),
    };
    bind(&context).await
}

/// Changes an object without the rules of an update; for what the server itself decides.
pub(super) async fn change_raw(
    context: &Context,
    propose: impl Fn(&Value) -> ApiResult<Value>,
) -> ApiResult<Value> {
    use crate::storage::{Expect, WriteError};
    let kind = context.target.kind;
    let key: Arc<str> = Arc::from(kind.key(context.namespace(), context.name()));
    for _ in 0..16 {
        let current = context
            .app
            .store
            .get(&key)
            .ok_or_else(|| ApiError::not_found(kind, context.name()))?;
        let next = propose(&current.value)?;
        if context.dry_run() {
            return Ok(next);
        }
        match context
            .app
            .store
            .put(Arc::clone(&key), Expect::Revision(current.revision), next)
            .await
        {
            Ok(stored) => return Ok(Value::clone(&stored.value)),
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::modified(kind, context.name()))
}

async fn evict(context: &Context) -> ApiResult<Response> {
    let eviction = decode::value(&context.headers, &context.body)?;
    let mut options = delete::Options::from_value(&eviction["deleteOptions"])?;
    options.dry_run |= context.dry_run();
    delete::remove(context, context.namespace(), context.name(), &options).await?;
    Ok(success())
}
