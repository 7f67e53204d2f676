//! Answers against the published schema, read strictly: what is printed is described.

use serde_json::Value;

/// Panics where an answer is not as `docs/schema/diagnosis.v1.json` says.
pub(crate) fn check(answer: &Value) {
    let schema: Value =
        serde_json::from_str(include_str!("../../../../../docs/schema/diagnosis.v1.json")).unwrap();
    let name = if answer["kind"] == "DiagnosisList" {
        "list"
    } else {
        "diagnosis"
    };
    let mut problems = Vec::new();
    against(&schema, &schema["$defs"][name], answer, "", &mut problems);
    assert!(problems.is_empty(), "{problems:?} in {answer}");
}

/// The words of JSON Schema that ours uses.
fn against(root: &Value, rule: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    if let Some(name) = rule["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap();
        let rule = &root["$defs"][name];
        assert!(rule.is_object(), "the schema lacks {name}");
        return against(root, rule, value, path, problems);
    }
    let fits = match rule["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some(other) => panic!("the schema's type {other} is not known here"),
        None => {
            rule["const"] == *value
                || rule["enum"]
                    .as_array()
                    .is_some_and(|all| all.contains(value))
        }
    };
    if !fits {
        problems.push(format!("{path} is {value}, not {rule}"));
    }
    for name in rule["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            problems.push(format!("{path} lacks {name}"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        match rule["properties"].get(name) {
            Some(rule) => against(root, rule, inner, &format!("{path}.{name}"), problems),
            None => problems.push(format!("{path}.{name} is not described")),
        }
    }
    for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
        against(
            root,
            &rule["items"],
            inner,
            &format!("{path}[{at}]"),
            problems,
        );
    }
}
