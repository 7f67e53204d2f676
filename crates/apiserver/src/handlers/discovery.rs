//! Discovery: which groups, versions and resources are served; legacy and aggregated.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::reply;
use crate::error::{ApiError, ApiResult};
use crate::kinds::{KINDS, Kind, SUBRESOURCE_VERBS, group_versions};
use crate::request::{Form, accepted};

/// The Kubernetes version whose API this is.
const VERSION: &str = "v1.36.2+towline";

/// The answer of `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// Serves `/api`, `/apis` and what is below them.
pub(super) fn page(path: &str, headers: &HeaderMap) -> ApiResult<Response> {
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let value = match segments.as_slice() {
        ["api" | "apis"] => {
            let core = segments[0] == "api";
            if let Ok(Form::Discovery(version)) = accepted(headers) {
                return Ok(aggregated(core, version));
            }
            if core {
                json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            } else {
                groups()
            }
        }
        ["api", "v1"] => resources("", "v1"),
        ["apis", wanted] => group(wanted).ok_or_else(ApiError::no_such_path)?,
        ["apis", group, version] if group_versions().contains(&(*group, *version)) => {
            resources(group, version)
        }
        [] => {
            json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]})
        }
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(reply::json(StatusCode::OK, &value))
}

fn group(wanted: &str) -> Option<Value> {
    let (_, version) = group_versions()
        .into_iter()
        .find(|(group, _)| !group.is_empty() && *group == wanted)?;
    let version = json!({"groupVersion": format!("{wanted}/{version}"), "version": version});
    Some(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": wanted, "versions": [version], "preferredVersion": version}),
    )
}

fn groups() -> Value {
    let list: Vec<Value> = group_versions()
        .iter()
        .filter_map(|(name, _)| group(name))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// Resources that only answer: name, kind, whether they live in namespaces.
fn virtual_resources(group: &str) -> &'static [(&'static str, &'static str, bool)] {
    match group {
        "authentication.k8s.io" => &[
            ("selfsubjectreviews", "SelfSubjectReview", false),
            ("tokenreviews", "TokenReview", false),
        ],
        "authorization.k8s.io" => &[
            (
                "localsubjectaccessreviews",
                "LocalSubjectAccessReview",
                true,
            ),
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
            ("subjectaccessreviews", "SubjectAccessReview", false),
        ],
        "" => &[("bindings", "Binding", true)],
        _ => &[],
    }
}

/// Group and version of a subresource's kind where it is not the resource's own.
fn foreign(kind: &str) -> Option<(&'static str, &'static str)> {
    match kind {
        "Scale" => Some(("autoscaling", "v1")),
        "Eviction" => Some(("policy", "v1")),
        "TokenRequest" => Some(("authentication.k8s.io", "v1")),
        _ => None,
    }
}

/// Subresources of a kind: name, kind, verbs.
fn subresources(kind: &Kind) -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let mut all: Vec<_> = kind.subresources.to_vec();
    if kind.status {
        all.push(("status", kind.kind, SUBRESOURCE_VERBS));
    }
    if kind.scale {
        all.push(("scale", "Scale", SUBRESOURCE_VERBS));
    }
    all
}

fn resources(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for kind in KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
    {
        let mut resource = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        list.push(resource);
        for (name, sub, verbs) in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub, "verbs": verbs,
            });
            if let Some((group, version)) = foreign(sub) {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            list.push(entry);
        }
    }
    for (name, kind, namespaced) in virtual_resources(group) {
        let singular = name.trim_end_matches('s');
        list.push(json!({"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": ["create"]}));
    }
    let version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}

fn aggregated_version(group: &str, version: &str) -> Value {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let mut list = Vec::new();
    for kind in KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
    {
        let own = json!({"group": group, "version": version, "kind": kind.kind});
        let mut resource = json!({
            "resource": kind.plural, "responseKind": own, "scope": scope(kind.namespaced),
            "singularResource": kind.singular, "verbs": kind.verbs(),
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        let subs: Vec<Value> = subresources(kind)
            .into_iter()
            .map(|(name, sub, verbs)| {
                let (group, version) = foreign(sub).unwrap_or((kind.group, kind.version));
                json!({"subresource": name, "verbs": verbs,
                    "responseKind": {"group": group, "version": version, "kind": sub}})
            })
            .collect();
        if !subs.is_empty() {
            resource["subresources"] = json!(subs);
        }
        list.push(resource);
    }
    for (name, kind, namespaced) in virtual_resources(group) {
        list.push(
            json!({"resource": name, "scope": scope(*namespaced), "verbs": ["create"],
            "singularResource": name.trim_end_matches('s'),
            "responseKind": {"group": group, "version": version, "kind": kind}}),
        );
    }
    json!({"version": version, "resources": list, "freshness": "Current"})
}

fn aggregated(core: bool, version: &str) -> Response {
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": [aggregated_version(group, version)]})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    let mut response = reply::json(StatusCode::OK, &list);
    let content =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(value) = HeaderValue::from_str(&content) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
