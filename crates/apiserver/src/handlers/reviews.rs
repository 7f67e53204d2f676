//! Questions about who somebody is and what they may do. Nothing is stored.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{decode, reply, write};
use crate::app::App;
use crate::auth::authorize::{self, Attributes};
use crate::auth::{Caller, token};
use crate::error::{ApiError, ApiResult};
use crate::kinds::KINDS;

/// Answers a review.
pub(super) fn review(
    app: &App,
    caller: &Caller,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> ApiResult<Response> {
    let mut review = decode::value(headers, body)?;
    if !review.is_object() {
        return Err(ApiError::bad_request("the review is not an object"));
    }
    for field in ["metadata", "spec"] {
        if !matches!(
            review.get(field),
            None | Some(Value::Null | Value::Object(_))
        ) {
            return Err(ApiError::bad_request(format!(
                "the field {field} of the review is not an object"
            )));
        }
    }
    let kind = match resource {
        "tokenreviews" => "TokenReview",
        "selfsubjectreviews" => "SelfSubjectReview",
        "subjectaccessreviews" => "SubjectAccessReview",
        "localsubjectaccessreviews" => "LocalSubjectAccessReview",
        "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
        _ => "SelfSubjectRulesReview",
    };
    let spec = &review["spec"];
    let status = match resource {
        "tokenreviews" => token_status(app, spec),
        "selfsubjectreviews" => json!({"userInfo": caller.user_info()}),
        "selfsubjectrulesreviews" => {
            rules(app, caller, spec["namespace"].as_str().unwrap_or_default())
        }
        "selfsubjectaccessreviews" => access(app, caller, spec, None),
        _ => {
            let strings = |value: &Value| -> Vec<String> {
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            let asked = Caller {
                name: spec["user"].as_str().unwrap_or_default().to_owned(),
                uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
                groups: strings(&spec["groups"]),
                extra: Vec::new(),
            };
            access(app, &asked, spec, namespace)
        }
    };
    review["kind"] = json!(kind);
    review["apiVersion"] = json!(format!("{group}/v1"));
    review["metadata"]["creationTimestamp"] = json!(write::now());
    review["status"] = status;
    if resource == "tokenreviews" {
        // The token came from the asker; there is no need to send it back.
        review["spec"]["token"] = json!("");
    }
    Ok(reply::json(StatusCode::CREATED, &review))
}

fn token_status(app: &App, spec: &Value) -> Value {
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(token::API_AUDIENCE.to_owned());
    }
    match token::verify(app, spec["token"].as_str().unwrap_or_default(), &audiences) {
        Ok((caller, shared)) => {
            json!({"authenticated": true, "user": caller.user_info(), "audiences": shared})
        }
        Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
    }
}

fn access(app: &App, caller: &Caller, spec: &Value, namespace: Option<&str>) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = &spec["resourceAttributes"];
    let ask = if resource.is_object() {
        let requirement = |label: &str| {
            resource["fieldSelector"]["requirements"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|term| term["key"] == label && term["operator"] == "In")
                .and_then(|term| term["values"][0].as_str())
                .map(str::to_owned)
        };
        Attributes {
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: namespace.map_or_else(|| text(&resource["namespace"]), str::to_owned),
            name: text(&resource["name"]),
            path: None,
            selected_name: requirement("metadata.name"),
            selected_node: requirement("spec.nodeName"),
        }
    } else {
        let path = &spec["nonResourceAttributes"];
        Attributes {
            verb: text(&path["verb"]),
            path: Some(text(&path["path"])),
            ..Attributes::default()
        }
    };
    let allowed = authorize::allowed(&app.store, caller, &ask);
    let mut status = json!({"allowed": allowed});
    if !allowed {
        status["reason"] = json!("none of the fixed roles allows it");
    }
    status
}

/// What the caller may do in a namespace, kind by kind.
fn rules(app: &App, caller: &Caller, namespace: &str) -> Value {
    let verbs = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ];
    let mut found = Vec::new();
    if caller.in_group("system:masters") {
        found.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    } else {
        for kind in KINDS {
            let allowed: Vec<&str> = verbs
                .into_iter()
                .filter(|verb| {
                    let ask = Attributes {
                        verb: (*verb).to_owned(),
                        group: kind.group.to_owned(),
                        resource: kind.plural.to_owned(),
                        namespace: if kind.namespaced {
                            namespace.to_owned()
                        } else {
                            String::new()
                        },
                        ..Attributes::default()
                    };
                    authorize::allowed(&app.store, caller, &ask)
                })
                .collect();
            if !allowed.is_empty() {
                found.push(json!({"verbs": allowed, "apiGroups": [kind.group], "resources": [kind.plural]}));
            }
        }
        for (group, resources) in [
            (
                "authorization.k8s.io",
                vec!["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            ("authentication.k8s.io", vec!["selfsubjectreviews"]),
        ] {
            found.push(json!({"verbs": ["create"], "apiGroups": [group], "resources": resources}));
        }
    }
    let paths = json!([{"verbs": ["get"], "nonResourceURLs":
        ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version"]}]);
    json!({"resourceRules": found, "nonResourceRules": paths, "incomplete": false})
}
