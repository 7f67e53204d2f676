//! What the server adds to objects and refuses of them, beyond their types.

mod defaults;
mod names;
mod pods;
mod validate;

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::handlers::Context;
use crate::kinds::Kind;
use crate::storage::Store;

pub(crate) use names::name;
pub(crate) use pods::account_soon;
pub(crate) use validate::validate;

/// Refuses to create in a namespace that is not there or is going away.
pub(crate) fn namespace_open(
    store: &Store,
    kind: &Kind,
    namespace: &str,
    name: &str,
) -> ApiResult<()> {
    let namespaces = Kind::named("", "namespaces");
    let Some(found) = store.get(&namespaces.key("", namespace)) else {
        return Err(ApiError::not_found(namespaces, namespace));
    };
    if found.value["metadata"]["deletionTimestamp"].is_string() {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error = ApiError::forbidden(kind, name, &why);
        error.details["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {namespace} is being terminated"),
        }]);
        return Err(error);
    }
    Ok(())
}

/// Admits a new object: defaults, service account, node restriction.
pub(crate) fn create(context: &Context, object: &mut Value) -> ApiResult<()> {
    let kind = context.target.kind;
    node_restriction(context, object, None)?;
    if kind.plural == "pods" {
        pods::service_account(&context.app.store, context.namespace(), object)?;
    }
    defaults::fill(kind, object)?;
    match (kind.group, kind.plural) {
        ("", "pods") => {
            object["status"]["phase"] = json!("Pending");
        }
        ("", "namespaces") => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        ("", "secrets") => {
            if let Some(text) = object["stringData"].as_object().cloned() {
                string_data(object, &text);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Admits a changed object (not a changed status).
pub(crate) fn update(context: &Context, object: &mut Value, old: &Value) -> ApiResult<()> {
    let kind = context.target.kind;
    node_restriction(context, object, Some(old))?;
    if kind.plural == "secrets"
        && let Some(text) = object["stringData"].as_object().cloned()
    {
        string_data(object, &text);
    }
    if kind.plural == "namespaces" {
        let name = object["metadata"]["name"].clone();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
    defaults::fill(kind, object)
}

/// Admits a changed status.
pub(crate) fn status_update(context: &Context, object: &mut Value, old: &Value) -> ApiResult<()> {
    node_restriction(context, object, Some(old))
}

fn string_data(object: &mut Value, text: &serde_json::Map<String, Value>) {
    use base64::Engine as _;
    for (key, value) in text {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        object["data"][key] = json!(encoded);
    }
    if let Some(object) = object.as_object_mut() {
        object.shift_remove("stringData");
    }
}

/// What the authorizer cannot see: what a node writes into the objects that it may write.
fn node_restriction(context: &Context, object: &Value, old: Option<&Value>) -> ApiResult<()> {
    let Some(node) = context.caller.node() else {
        return Ok(());
    };
    let kind = context.target.kind;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| {
        Err(ApiError::forbidden(
            kind,
            name,
            &format!("node \"{node}\" {why}"),
        ))
    };
    match (kind.plural, old) {
        ("pods", None) => {
            let mirror =
                object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
            if !mirror {
                return refuse("can only create mirror pods");
            }
            if object["spec"]["nodeName"] != node {
                return refuse("can only create pods with spec.nodeName set to itself");
            }
            let text = object["spec"].to_string();
            if [
                "\"secret\"",
                "\"configMap\"",
                "\"serviceAccountName\"",
                "KeyRef\"",
                "\"imagePullSecrets\"",
            ]
            .iter()
            .any(|word| text.contains(word))
            {
                return refuse(
                    "can not create pods that reference secrets, config maps or service accounts",
                );
            }
        }
        ("nodes", _) if name != node => {
            return refuse(&format!("is not allowed to modify node \"{name}\""));
        }
        ("nodes", old) => {
            let restricted = |object: &Value| {
                let labels = object["metadata"]["labels"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                labels
                    .into_iter()
                    .filter(|(key, _)| key.contains("node-restriction.kubernetes.io/"))
                    .collect::<serde_json::Map<_, _>>()
            };
            if restricted(object) != old.map(restricted).unwrap_or_default() {
                return refuse("is not allowed to set labels of node-restriction.kubernetes.io");
            }
            if old.is_some_and(|old| old["spec"]["taints"] != object["spec"]["taints"]) {
                return refuse("is not allowed to modify taints");
            }
        }
        ("leases", _) if name != node => {
            return refuse("can only access the node lease with its own name");
        }
        _ => {}
    }
    Ok(())
}
