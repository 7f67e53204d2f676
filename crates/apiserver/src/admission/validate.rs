//! Validation: what would be nonsense to store.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::Value;

use crate::error::{ApiError, ApiResult, FieldCause};
use crate::kinds::Kind;

/// Label values, and names of labels after the slash.
const LABEL_LENGTH: usize = 63;
/// Bytes of all annotations together.
const ANNOTATIONS: usize = 256 << 10;
/// Bytes of the data of a secret or config map.
const DATA: usize = 1 << 20;

fn cause(reason: &'static str, field: &str, message: impl Into<String>) -> FieldCause {
    FieldCause {
        reason,
        field: field.to_owned(),
        message: message.into(),
    }
}

/// Checks an object in its stored form, with its predecessor when it replaces one.
pub(crate) fn validate(
    kind: &Kind,
    name: &str,
    object: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let mut causes = Vec::new();
    metadata(object, &mut causes);
    match (kind.group, kind.plural) {
        ("", "pods") => pod(object, old, &mut causes),
        ("apps", "deployments" | "replicasets") => workload(object, old, &mut causes),
        ("", "secrets") => secret(object, old, &mut causes),
        ("", "configmaps") => data(object, old, &mut causes),
        _ => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(kind, name, &causes))
    }
}

fn label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    text.is_empty()
        || (text.len() <= LABEL_LENGTH
            && inner(bytes[0])
            && inner(bytes[bytes.len() - 1])
            && bytes.iter().all(|b| inner(*b) || b"-_.".contains(b)))
}

fn label_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty()
        && label_value(name)
        && prefix.is_none_or(|prefix| !prefix.is_empty() && prefix.len() <= 253)
}

fn metadata(object: &Value, causes: &mut Vec<FieldCause>) {
    let metadata = &object["metadata"];
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !label_key(key) {
            let message = format!(
                "Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or \
                 '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
                 regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            );
            causes.push(cause("FieldValueInvalid", "metadata.labels", message));
        }
        let value = value.as_str().unwrap_or_default();
        if !label_value(value) {
            let message = format!(
                "Invalid value: \"{value}\": a valid label must be an empty string or consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
                 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            );
            causes.push(cause("FieldValueInvalid", "metadata.labels", message));
        }
    }
    let bytes: usize = metadata["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > ANNOTATIONS {
        let message = format!("Too long: may not be more than {ANNOTATIONS} bytes");
        causes.push(cause("FieldValueTooLong", "metadata.annotations", message));
    }
}

fn pod(object: &Value, old: Option<&Value>, causes: &mut Vec<FieldCause>) {
    let parse = |value: &Value| serde_json::from_value::<Pod>(value.clone()).ok();
    let Some(new) = parse(object) else { return };
    let errors = match old.and_then(parse) {
        // A status may change without the spec being judged again.
        Some(old) if old.spec == new.spec => Vec::new(),
        Some(old) => towline_pod::validate::pod_update(&old, &new),
        None => towline_pod::validate::pod(&new),
    };
    causes.extend(errors.into_iter().map(|error| FieldCause {
        reason: error.kind,
        field: error.field,
        message: error.message,
    }));
}

fn workload(object: &Value, old: Option<&Value>, causes: &mut Vec<FieldCause>) {
    let spec = &object["spec"];
    if old.is_some_and(|old| old["spec"] == *spec) {
        return;
    }
    if spec["replicas"]
        .as_i64()
        .is_some_and(|replicas| replicas < 0)
    {
        let message = format!(
            "Invalid value: {}: must be greater than or equal to 0",
            spec["replicas"]
        );
        causes.push(cause("FieldValueInvalid", "spec.replicas", message));
    }
    let selector = spec["selector"]["matchLabels"].as_object();
    let expressions = spec["selector"]["matchExpressions"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if selector.is_none_or(serde_json::Map::is_empty) && !expressions {
        causes.push(cause(
            "FieldValueRequired",
            "spec.selector",
            "Required value",
        ));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if selector
        .into_iter()
        .flatten()
        .any(|(key, value)| labels.get(key) != Some(value))
    {
        let shown = serde_json::to_string(labels).unwrap_or_default();
        let message =
            format!("Invalid value: {shown}: `selector` does not match template `labels`");
        causes.push(cause(
            "FieldValueInvalid",
            "spec.template.metadata.labels",
            message,
        ));
    }
    if old.is_some_and(|old| old["spec"]["selector"] != spec["selector"]) {
        let shown = serde_json::to_string(&spec["selector"]).unwrap_or_default();
        causes.push(cause(
            "FieldValueInvalid",
            "spec.selector",
            format!("Invalid value: {shown}: field is immutable"),
        ));
    }
    let template = serde_json::from_value::<Option<PodSpec>>(spec["template"]["spec"].clone());
    if let Ok(template) = template.map(Option::unwrap_or_default) {
        causes.extend(
            towline_pod::validate::template_spec(&template, "spec.template.spec")
                .into_iter()
                .map(|error| FieldCause {
                    reason: error.kind,
                    field: error.field,
                    message: error.message,
                }),
        );
    }
    if spec["template"]["spec"]["restartPolicy"]
        .as_str()
        .is_some_and(|policy| policy != "Always")
    {
        let message = format!(
            "Unsupported value: {}: supported values: \"Always\"",
            spec["template"]["spec"]["restartPolicy"]
        );
        causes.push(cause(
            "FieldValueNotSupported",
            "spec.template.spec.restartPolicy",
            message,
        ));
    }
}

fn data(object: &Value, old: Option<&Value>, causes: &mut Vec<FieldCause>) {
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            bytes += value.as_str().map_or(0, str::len);
            let good = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && key != ".."
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !good {
                let message = format!(
                    "Invalid value: \"{key}\": a valid config key must consist of alphanumeric \
                     characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for \
                     validation is '[-._a-zA-Z0-9]+')"
                );
                causes.push(cause(
                    "FieldValueInvalid",
                    &format!("{field}[{key}]"),
                    message,
                ));
            }
        }
    }
    if bytes > DATA * 4 / 3 {
        causes.push(cause(
            "FieldValueTooLong",
            "data",
            format!("Too long: may not be more than {DATA} bytes"),
        ));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == true)
        && (old["data"] != object["data"] || object["immutable"] != true)
    {
        causes.push(cause(
            "FieldValueForbidden",
            "data",
            "Forbidden: field is immutable when `immutable` is set",
        ));
    }
}

fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<FieldCause>) {
    use base64::Engine as _;
    data(object, old, causes);
    if old.is_some_and(|old| old["type"] != object["type"]) {
        let shown = &object["type"];
        causes.push(cause(
            "FieldValueInvalid",
            "type",
            format!("Invalid value: {shown}: field is immutable"),
        ));
    }
    let json_key = match object["type"].as_str() {
        Some("kubernetes.io/dockerconfigjson") => ".dockerconfigjson",
        Some("kubernetes.io/dockercfg") => ".dockercfg",
        _ => return,
    };
    let field = format!("data[{json_key}]");
    let Some(text) = object["data"][json_key].as_str() else {
        causes.push(cause("FieldValueRequired", &field, "Required value"));
        return;
    };
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&decoded) {
        // Never the content: only where the JSON breaks.
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "Invalid value: \"<secret contents redacted>\": not JSON at line {line} column {column}"
        );
        causes.push(cause("FieldValueInvalid", &field, message));
    }
}
