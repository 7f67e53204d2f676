//! What the agent of a node may do: its own node and lease, the pods bound to it, and what those pods name.

use serde_json::Value;

use super::authorize::Attributes;
use crate::kinds::Kind;
use crate::storage::Store;

/// Kinds without secrets that a kubelet reads as a whole.
const READ: &[(&str, &str)] = &[
    ("", "services"),
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("node.k8s.io", "runtimeclasses"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattachments"),
    ("scheduling.k8s.io", "priorityclasses"),
];

/// Decides for the node `name`.
pub(crate) fn allowed(store: &Store, name: &str, ask: &Attributes) -> bool {
    if ask.path.is_some() {
        return false;
    }
    let verb = ask.verb.as_str();
    match (
        ask.group.as_str(),
        ask.resource.as_str(),
        ask.subresource.as_str(),
    ) {
        ("", "nodes", "" | "status") => match verb {
            "create" => ask.name.is_empty() || ask.name == name,
            "get" | "list" | "watch" | "update" | "patch" => ask.one_name() == name,
            _ => false,
        },
        ("coordination.k8s.io", "leases", "") => {
            ask.namespace == "kube-node-lease"
                && (verb == "create" || ask.one_name() == name)
                && verb != "deletecollection"
        }
        ("", "pods", "") => match verb {
            "list" | "watch" => {
                ask.selected_node.as_deref() == Some(name) || own_pod(store, name, ask)
            }
            "get" | "delete" => own_pod(store, name, ask),
            // Mirror pods; their content is checked at admission.
            "create" => true,
            _ => false,
        },
        ("", "pods", "status") => {
            matches!(verb, "get" | "patch" | "update") && own_pod(store, name, ask)
        }
        ("", "pods", "eviction") => verb == "create" && own_pod(store, name, ask),
        ("" | "events.k8s.io", "events", "") => matches!(verb, "create" | "patch" | "update"),
        ("", "secrets" | "configmaps", "") => {
            ask.reads() && named_by_pods(store, name, &ask.resource, &ask.namespace, ask.one_name())
        }
        ("", "serviceaccounts", "") => {
            verb == "get"
                && named_by_pods(store, name, "serviceaccounts", &ask.namespace, &ask.name)
        }
        ("", "serviceaccounts", "token") => {
            verb == "create"
                && named_by_pods(store, name, "serviceaccounts", &ask.namespace, &ask.name)
        }
        ("authentication.k8s.io", "tokenreviews", "")
        | ("authorization.k8s.io", "subjectaccessreviews", "") => verb == "create",
        (group, resource, "") => ask.reads() && READ.contains(&(group, resource)),
        _ => false,
    }
}

fn own_pod(store: &Store, node: &str, ask: &Attributes) -> bool {
    let pod = ask.one_name();
    if pod.is_empty() || ask.namespace.is_empty() {
        return false;
    }
    // A pod that is gone may be asked for: the agent learns that it is gone.
    store
        .get(&Kind::named("", "pods").key(&ask.namespace, pod))
        .is_none_or(|stored| stored.value["spec"]["nodeName"] == node)
}

/// Whether a pod bound to the node names this object.
fn named_by_pods(store: &Store, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    if name.is_empty() || namespace.is_empty() {
        return false;
    }
    let prefix = Kind::named("", "pods").prefix(Some(namespace));
    let Ok((pods, _)) = store.list(&prefix, None) else {
        return false;
    };
    pods.iter().any(|(_, stored)| {
        stored.value["spec"]["nodeName"] == node && names(&stored.value["spec"], resource, name)
    })
}

/// Whether a pod's spec names a secret, config map or service account.
fn names(spec: &Value, resource: &str, name: &str) -> bool {
    if resource == "serviceaccounts" {
        return spec["serviceAccountName"] == name;
    }
    let secret = resource == "secrets";
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    if secret
        && list(spec, "imagePullSecrets")
            .iter()
            .any(|reference| reference["name"] == name)
    {
        return true;
    }
    let (volume_field, name_field, projected, env_from, env) = if secret {
        (
            "secret",
            "secretName",
            "secret",
            "secretRef",
            "secretKeyRef",
        )
    } else {
        (
            "configMap",
            "name",
            "configMap",
            "configMapRef",
            "configMapKeyRef",
        )
    };
    let in_volumes = list(spec, "volumes").iter().any(|volume| {
        volume[volume_field][name_field] == name
            || list(&volume["projected"], "sources")
                .iter()
                .any(|source| source[projected]["name"] == name)
            || (secret && volume["csi"]["nodePublishSecretRef"]["name"] == name)
    });
    in_volumes
        || ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .flat_map(|field| list(spec, field))
            .any(|container| {
                list(&container, "envFrom")
                    .iter()
                    .any(|source| source[env_from]["name"] == name)
                    || list(&container, "env")
                        .iter()
                        .any(|var| var["valueFrom"][env]["name"] == name)
            })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_name_an_object_is_known() {
        for (spec, resource, expected) in [
            (
                json!({"imagePullSecrets": [{"name": "x"}]}),
                "secrets",
                true,
            ),
            (
                json!({"imagePullSecrets": [{"name": "x"}]}),
                "configmaps",
                false,
            ),
            (
                json!({"volumes": [{"secret": {"secretName": "x"}}]}),
                "secrets",
                true,
            ),
            (
                json!({"volumes": [{"configMap": {"name": "x"}}]}),
                "configmaps",
                true,
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "x"}}]}}]}),
                "secrets",
                true,
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"configMap": {"name": "x"}}]}}]}),
                "configmaps",
                true,
            ),
            (
                json!({"containers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]}),
                "secrets",
                true,
            ),
            (
                json!({"initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "x"}}}]}]}),
                "secrets",
                true,
            ),
            (
                json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "x"}}}]}]}),
                "configmaps",
                true,
            ),
            (json!({"serviceAccountName": "x"}), "serviceaccounts", true),
            (
                json!({"containers": [{"env": [{"value": "x"}]}]}),
                "secrets",
                false,
            ),
        ] {
            assert_eq!(names(&spec, resource, "x"), expected, "{spec} {resource}");
        }
    }
}
