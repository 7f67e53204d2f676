//! Validation of pods and pod templates with Kubernetes' texts.
//!
//! What is checked is what people get wrong and what the rest of the house relies on: required fields, names, enumerated
//! words, images, references between parts, and what an update may change. Fields that nothing here acts on are not
//! checked.

mod container;
mod names;
mod update;
mod volume;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

pub use names::{dns_label, dns_subdomain};
pub use update::pod_update;

use crate::text::quote;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field: `spec.containers[0].name`.
    pub field: String,
    /// What kind of error: `FieldValueRequired` and so on, the `reason` of a cause in a `Status`.
    pub kind: &'static str,
    /// What is wrong, with the kind of error in front: `Required value`, `Invalid value: "x": ...`.
    pub message: String,
}

impl FieldError {
    /// Something required is not there; `why` may be empty.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self {
            field: field.into(),
            kind: "FieldValueRequired",
            message,
        }
    }

    /// A text that is not allowed.
    pub fn invalid(field: impl Into<String>, value: &str, why: &str) -> Self {
        Self {
            field: field.into(),
            kind: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", quote(value)),
        }
    }

    /// A number that is not allowed.
    pub fn invalid_number(field: impl Into<String>, value: i64, why: &str) -> Self {
        Self {
            field: field.into(),
            kind: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {why}"),
        }
    }

    /// A word that is none of those supported.
    pub fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let words: Vec<String> = supported.iter().map(|word| quote(word)).collect();
        Self {
            field: field.into(),
            kind: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {}: supported values: {}",
                quote(value),
                words.join(", ")
            ),
        }
    }

    /// A name that occurs twice.
    pub fn duplicate(field: impl Into<String>, value: &str) -> Self {
        Self {
            field: field.into(),
            kind: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", quote(value)),
        }
    }

    /// A name that refers to nothing.
    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self {
            field: field.into(),
            kind: "FieldValueNotFound",
            message: format!("Not found: {}", quote(value)),
        }
    }

    /// A change or combination that is not allowed.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self {
            field: field.into(),
            kind: "FieldValueForbidden",
            message: format!("Forbidden: {why}"),
        }
    }
}

impl std::fmt::Display for FieldError {
    /// As in the `message` of a `Status`: `spec.containers[0].name: Required value`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The text of several errors in a `Status`: one as it is, more in brackets.
pub fn aggregate(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// What is wrong with a pod that is created, after [`crate::defaults::pod`].
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match pod.metadata.name.as_deref() {
        Some(name) if !name.is_empty() => {
            if let Some(why) = dns_subdomain(name) {
                errors.push(FieldError::invalid("metadata.name", name, &why));
            }
        }
        _ if pod
            .metadata
            .generate_name
            .as_deref()
            .is_some_and(|prefix| !prefix.is_empty()) => {}
        _ => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
    }
    match &pod.spec {
        Some(spec) => pod_spec(spec, "spec", true, &mut errors),
        None => errors.push(FieldError::required("spec.containers", "")),
    }
    errors
}

/// What is wrong with the spec of a template; `path` is its place, such as `spec.template.spec`.
pub fn template_spec(spec: &PodSpec, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    pod_spec(spec, path, false, &mut errors);
    errors
}

/// `own` is true for a pod itself, whose images may not have white space around them.
fn pod_spec(spec: &PodSpec, path: &str, own: bool, errors: &mut Vec<FieldError>) {
    let volumes = volume::all(spec, &format!("{path}.volumes"), errors);
    container::all(spec, path, own, &volumes, errors);
    word(
        errors,
        path,
        "restartPolicy",
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
    );
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    word(errors, path, "dnsPolicy", spec.dns_policy.as_deref(), &dns);
    if let Some(grace) = spec
        .termination_grace_period_seconds
        .filter(|grace| *grace < 0)
    {
        let field = format!("{path}.terminationGracePeriodSeconds");
        errors.push(FieldError::invalid_number(
            field,
            grace,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(deadline) = spec
        .active_deadline_seconds
        .filter(|deadline| !(1..=i64::from(i32::MAX)).contains(deadline))
    {
        let field = format!("{path}.activeDeadlineSeconds");
        errors.push(FieldError::invalid_number(
            field,
            deadline,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    for (name, field) in [
        (&spec.node_name, "nodeName"),
        (&spec.service_account_name, "serviceAccountName"),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty())
            && let Some(why) = dns_subdomain(name)
        {
            errors.push(FieldError::invalid(format!("{path}.{field}"), name, &why));
        }
    }
    for (name, field) in [(&spec.hostname, "hostname"), (&spec.subdomain, "subdomain")] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty())
            && let Some(why) = dns_label(name)
        {
            errors.push(FieldError::invalid(format!("{path}.{field}"), name, &why));
        }
    }
}

/// An enumerated word that has to be one of `supported`; absent or empty is an error too, as defaults come first.
fn word(
    errors: &mut Vec<FieldError>,
    path: &str,
    name: &str,
    value: Option<&str>,
    supported: &[&str],
) {
    let field = format!("{path}.{name}");
    match value {
        None | Some("") => errors.push(FieldError::required(field, "")),
        Some(value) if !supported.contains(&value) => {
            // Kubernetes lists the words in order of the alphabet.
            let mut sorted = supported.to_vec();
            sorted.sort_unstable();
            errors.push(FieldError::not_supported(field, value, &sorted));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn errors(spec: &Value) -> Vec<String> {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        crate::defaults::pod(&mut pod);
        super::pod(&pod).iter().map(ToString::to_string).collect()
    }

    fn with(container: &Value) -> Value {
        json!({"containers": [container]})
    }

    #[test]
    fn a_good_pod_has_no_errors() {
        assert_eq!(
            errors(&with(
                &json!({"name": "a", "image": "Any:Thing the server does not parse"})
            )),
            [""; 0]
        );
    }

    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

    #[test]
    fn texts_are_those_of_the_api_server() {
        let good = json!({"name": "a", "image": "i"});
        for (spec, expected) in [
            (json!({"containers": []}), "spec.containers: Required value".to_owned()),
            (with(&json!({"name": "", "image": "i"})), "spec.containers[0].name: Required value".to_owned()),
            (with(&json!({"name": "a"})), "spec.containers[0].image: Required value".to_owned()),
            (
                with(&json!({"name": "a", "image": " i"})),
                "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace".to_owned(),
            ),
            (
                with(&json!({"name": "A_b", "image": "i"})),
                format!("spec.containers[0].name: Invalid value: \"A_b\": {LABEL}"),
            ),
            (json!({"containers": [good, good]}), "spec.containers[1].name: Duplicate value: \"a\"".to_owned()),
            (
                json!({"containers": [good], "initContainers": [good]}),
                "spec.initContainers[0].name: Duplicate value: \"a\"".to_owned(),
            ),
            (
                with(&json!({"name": "a", "image": "i", "imagePullPolicy": "Sometimes"})),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".to_owned(),
            ),
            (
                json!({"containers": [good], "restartPolicy": "Maybe"}),
                "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"".to_owned(),
            ),
            (
                with(&json!({"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"".to_owned(),
            ),
            (
                with(&json!({"name": "a", "image": "i", "ports": [{"containerPort": 0}]})),
                "spec.containers[0].ports[0].containerPort: Required value".to_owned(),
            ),
            (
                with(&json!({"name": "a", "image": "i", "ports": [{"containerPort": 70000}]})),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive".to_owned(),
            ),
            (
                json!({"containers": [good], "volumes": [{"name": "v"}, {"name": "v"}]}),
                "spec.volumes[1].name: Duplicate value: \"v\"".to_owned(),
            ),
            (
                json!({"containers": [good], "volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}),
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type".to_owned(),
            ),
            (
                with(&json!({"name": "a", "image": "i", "env": [{"name": ""}]})),
                "spec.containers[0].env[0].name: Required value".to_owned(),
            ),
        ] {
            assert_eq!(errors(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn a_pod_needs_a_name() {
        let pod = |metadata: Value| -> Pod {
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        assert_eq!(
            aggregate(&super::pod(&pod(json!({})))),
            "[metadata.name: Required value: name or generateName is required, spec.containers: Required value]"
        );
        assert_eq!(
            aggregate(&super::pod(&pod(json!({"generateName": "p-"})))),
            "spec.containers: Required value"
        );
        assert!(
            super::pod(&pod(json!({"name": "UPPER"})))[0]
                .message
                .contains("RFC 1123 subdomain")
        );
    }

    #[test]
    fn templates_may_have_white_space_around_images() {
        let mut spec: PodSpec =
            serde_json::from_value(with(&json!({"name": "a", "image": " i"}))).unwrap();
        crate::defaults::pod_spec(&mut spec);
        assert_eq!(template_spec(&spec, "spec.template.spec"), []);
    }
}
