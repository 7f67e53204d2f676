//! What a caller may do: fixed roles, no configuration.
//!
//! `system:masters` may do everything; a node what its pods need (see `node`); the scheduler and the controllers their
//! part; everybody who is authenticated may discover the API and ask about themselves; nobody else may do anything.

use super::Caller;
use super::node;
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::pki::KUBELET_CLIENT;
use crate::storage::Store;

/// What is asked, as access reviews describe it too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Set for a request that is not about a resource.
    pub(crate) path: Option<String>,
    /// Value that `metadata.name` must have by the field selector of a list or watch.
    pub(crate) selected_name: Option<String>,
    /// Value that `spec.nodeName` must have by the field selector of a list or watch.
    pub(crate) selected_node: Option<String>,
}

impl Attributes {
    /// The object's name, given or selected.
    pub(crate) fn one_name(&self) -> &str {
        if self.name.is_empty() {
            self.selected_name.as_deref().unwrap_or_default()
        } else {
            &self.name
        }
    }

    pub(crate) fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// 403 in Kubernetes' words.
    pub(crate) fn forbidden(&self, caller: &Caller) -> ApiError {
        let quoted = |text: &str| format!("\"{text}\"");
        if let Some(path) = &self.path {
            let message = format!(
                "forbidden: User {} cannot {} path {}",
                quoted(&caller.name),
                self.verb,
                quoted(path)
            );
            let mut error = ApiError::new(403, "Forbidden", message);
            error.details = serde_json::json!({});
            return error;
        }
        let resource = if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", quoted(&self.namespace))
        };
        let qualified = if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        };
        let object = if self.name.is_empty() {
            qualified
        } else {
            format!("{qualified} {}", quoted(&self.name))
        };
        let message = format!(
            "{object} is forbidden: User {} cannot {} resource {} in API group {} {scope}",
            quoted(&caller.name),
            self.verb,
            quoted(&resource),
            quoted(&self.group),
        );
        let mut error = ApiError::new(403, "Forbidden", message);
        error.details = serde_json::json!({"kind": self.resource});
        if !self.name.is_empty() {
            error.details["name"] = serde_json::json!(self.name);
        }
        if !self.group.is_empty() {
            error.details["group"] = serde_json::json!(self.group);
        }
        error
    }
}

/// Whether a caller may do this.
pub(crate) fn allowed(store: &Store, caller: &Caller, ask: &Attributes) -> bool {
    if caller.in_group("system:masters") || everybody(caller, ask) {
        return true;
    }
    if let Some(name) = caller.node() {
        return node::allowed(store, name, ask);
    }
    match caller.name.as_str() {
        "system:kube-scheduler" => scheduler(ask),
        "system:kube-controller-manager" => controllers(ask),
        // Asked by a kubelet about the API server's own calls to it.
        KUBELET_CLIENT => ask.is("", "nodes") && !ask.subresource.is_empty(),
        _ => false,
    }
}

fn everybody(caller: &Caller, ask: &Attributes) -> bool {
    if !caller.in_group("system:authenticated") {
        return false;
    }
    if let Some(path) = &ask.path {
        let discovery = [
            "/api", "/apis", "/version", "/openapi", "/healthz", "/livez", "/readyz",
        ];
        return ask.verb == "get"
            && discovery.iter().any(|root| {
                path == root || path.strip_prefix(root).is_some_and(|p| p.starts_with('/'))
            });
    }
    let own_reviews = ask.is("authorization.k8s.io", "selfsubjectaccessreviews")
        || ask.is("authorization.k8s.io", "selfsubjectrulesreviews")
        || ask.is("authentication.k8s.io", "selfsubjectreviews");
    ask.verb == "create" && own_reviews
}

fn events(ask: &Attributes) -> bool {
    (ask.is("", "events") || ask.is("events.k8s.io", "events"))
        && matches!(ask.verb.as_str(), "create" | "patch" | "update")
}

fn component_lease(ask: &Attributes) -> bool {
    ask.is("coordination.k8s.io", "leases") && ask.namespace == "kube-system"
}

fn scheduler(ask: &Attributes) -> bool {
    let secretive =
        ask.is("", "secrets") || ask.is("", "configmaps") || ask.is("", "serviceaccounts");
    if ask.reads() {
        return ask.subresource.is_empty() && !secretive && is_stored(ask);
    }
    events(ask)
        || component_lease(ask)
        || (ask.is("", "pods")
            && match ask.subresource.as_str() {
                "binding" => ask.verb == "create",
                "status" => matches!(ask.verb.as_str(), "patch" | "update"),
                "" => ask.verb == "delete",
                _ => false,
            })
}

fn is_stored(ask: &Attributes) -> bool {
    crate::kinds::KINDS
        .iter()
        .any(|kind: &Kind| kind.group == ask.group && kind.plural == ask.resource)
}

/// The controllers look after every stored kind, but hand out no tokens, bind no pods and read no logs.
fn controllers(ask: &Attributes) -> bool {
    ask.path.is_none()
        && is_stored(ask)
        && matches!(
            ask.subresource.as_str(),
            "" | "status" | "scale" | "finalize" | "eviction"
        )
}
