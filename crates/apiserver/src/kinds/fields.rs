//! Values that field selectors compare.

use serde_json::Value;

use super::Kind;

/// The value of a field label on a stored object; `None` when the kind has no such label. A field that is not set is "".
pub(crate) fn field_value(kind: &Kind, label: &str, stored: &Value) -> Option<String> {
    let pointer = match label {
        "metadata.name" => "/metadata/name",
        "metadata.namespace" if kind.namespaced => "/metadata/namespace",
        _ => kind.fields.iter().find(|(name, _)| *name == label)?.1,
    };
    let text = match stored.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ if pointer == "/spec/unschedulable" || pointer == "/spec/hostNetwork" => {
            "false".to_owned()
        }
        // A core event names its source; one of the newer API only its controller, and the other way round.
        _ if pointer == "/source/component" => at(stored, "/reportingComponent"),
        _ if pointer == "/reportingComponent" => at(stored, "/source/component"),
        _ => String::new(),
    };
    Some(text)
}

fn at(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
