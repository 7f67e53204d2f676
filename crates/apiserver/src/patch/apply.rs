//! Server-side apply: merging a configuration, and remembering which manager applied which field.
//!
//! Only appliers own fields here; plain updates are not tracked. A field that its applier leaves out is removed unless
//! another applier has it; a field that another applier has with a different value is a conflict.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::keys::{self, List, Place};
use crate::error::ApiError;
use crate::kinds::Kind;

/// One field that two managers want differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    manager: String,
    path: Vec<String>,
}

type Fields = BTreeSet<Vec<String>>;

/// Fields that no applier owns.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// A new object from a configuration.
pub(crate) fn first(kind: &Kind, config: &Value, manager: &str, now: &str) -> Value {
    let mut object = config.clone();
    let owned = fields(config);
    object["metadata"]["managedFields"] = json!([entry(kind, manager, now, &owned)]);
    object
}

/// Applies a configuration to an object that exists.
pub(crate) fn onto(
    kind: &Kind,
    current: &Value,
    config: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, Vec<Conflict>> {
    let wanted = fields(config);
    let entries = current["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_own = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Apply";
    let own = entries.iter().find(|entry| is_own(entry));
    let before = own
        .map(|entry| flatten(&entry["fieldsV1"]))
        .unwrap_or_default();
    let mut others: Vec<(Value, Fields)> = entries
        .iter()
        .filter(|entry| !is_own(entry))
        .map(|entry| (entry.clone(), flatten(&entry["fieldsV1"])))
        .collect();
    let mut conflicts = Vec::new();
    for path in &wanted {
        let (new, old) = (resolve(config, path), resolve(current, path));
        if new == old || path.last().is_some_and(|step| step == ".") {
            continue;
        }
        for (entry, owned) in &mut others {
            if !owned.contains(path) {
                continue;
            }
            if force {
                owned.remove(path);
            } else {
                let manager = entry["manager"].as_str().unwrap_or_default().to_owned();
                conflicts.push(Conflict {
                    manager,
                    path: path.clone(),
                });
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut object = merge(current, config, Place::default());
    // Deepest first, so that the fields of a list item go before the item.
    let mut dropped: Vec<&Vec<String>> = before
        .difference(&wanted)
        .filter(|path| others.iter().all(|(_, owned)| !owned.contains(*path)))
        .collect();
    dropped.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in dropped {
        remove(&mut object, path);
    }
    let mut list: Vec<Value> = others
        .into_iter()
        .filter(|(entry, owned)| !owned.is_empty() || entry["operation"] != "Apply")
        .map(|(mut entry, owned)| {
            entry["fieldsV1"] = unflatten(&owned);
            entry
        })
        .collect();
    // Unchanged ownership keeps its time, so that applying the same again changes nothing.
    list.push(match own {
        Some(own) if before == wanted => own.clone(),
        _ => entry(kind, manager, now, &wanted),
    });
    object["metadata"]["managedFields"] = json!(list);
    Ok(object)
}

/// 409 that names each conflict.
pub(crate) fn conflict_error(kind: &Kind, name: &str, conflicts: &[Conflict]) -> ApiError {
    let shown: Vec<(String, String)> = conflicts
        .iter()
        .map(|conflict| (conflict.manager.clone(), dotted(&conflict.path)))
        .collect();
    let text = match shown.as_slice() {
        [(manager, field)] => {
            format!("Apply failed with 1 conflict: conflict with \"{manager}\": {field}")
        }
        many => {
            let lines: Vec<String> = many
                .iter()
                .map(|(manager, field)| format!("conflict with \"{manager}\": {field}"))
                .collect();
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                lines.join("; ")
            )
        }
    };
    let mut error = ApiError::new(409, "Conflict", text);
    error.details = json!({"name": name, "kind": kind.plural, "causes": shown.iter().map(|(manager, field)| json!({
        "reason": "FieldManagerConflict", "message": format!("conflict with \"{manager}\""), "field": field,
    })).collect::<Vec<_>>()});
    error
}

fn dotted(path: &[String]) -> String {
    path.iter()
        .fold(String::new(), |text, step| match step.split_once(':') {
            Some(("f", name)) => format!("{text}.{name}"),
            Some(("k" | "v", key)) => format!(
                "{text}[{}]",
                key.trim_matches(['{', '}'])
                    .replace("\":", "=")
                    .replace('"', "")
            ),
            _ => text,
        })
}

fn entry(kind: &Kind, manager: &str, now: &str, owned: &Fields) -> Value {
    json!({
        "manager": manager, "operation": "Apply", "apiVersion": kind.api_version(), "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": unflatten(owned),
    })
}

/// The fields that a configuration sets.
fn fields(config: &Value) -> Fields {
    let mut found = Fields::new();
    if let Value::Object(map) = config {
        for (key, value) in map {
            match key.as_str() {
                "apiVersion" | "kind" => {}
                "metadata" => {
                    let kept: Map<String, Value> = value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .filter(|(name, _)| !UNOWNED.contains(&name.as_str()))
                        .map(|(name, value)| (name.clone(), value.clone()))
                        .collect();
                    if !kept.is_empty() {
                        collect(
                            &Value::Object(kept),
                            Place::default(),
                            "metadata",
                            &["f:metadata".to_owned()],
                            &mut found,
                        );
                    }
                }
                _ => collect(
                    value,
                    Place::default(),
                    key,
                    &[format!("f:{key}")],
                    &mut found,
                ),
            }
        }
    }
    found
}

fn collect(value: &Value, place: Place<'_>, field: &str, path: &[String], found: &mut Fields) {
    let step = |name: String| path.iter().cloned().chain([name]).collect::<Vec<_>>();
    match value {
        Value::Object(map) if !map.is_empty() && !keys::atomic_map(place, field) => {
            for (key, value) in map {
                collect(
                    value,
                    place.enter(field),
                    key,
                    &step(format!("f:{key}")),
                    found,
                );
            }
        }
        Value::Array(items) => match keys::list(place, field) {
            List::Atomic => {
                found.insert(path.to_vec());
            }
            List::Set => {
                for item in items {
                    found.insert(step(format!("v:{item}")));
                }
            }
            List::Map(names) => {
                for item in items {
                    let path = step(format!("k:{}", item_key(item, names)));
                    found.insert(path.iter().cloned().chain([".".to_owned()]).collect());
                    for (key, value) in item.as_object().into_iter().flatten() {
                        let inner: Vec<String> =
                            path.iter().cloned().chain([format!("f:{key}")]).collect();
                        collect(value, place.enter(field), key, &inner, found);
                    }
                }
            }
        },
        _ => {
            found.insert(path.to_vec());
        }
    }
}

/// The key of an item of a keyed list; a port without a protocol is TCP.
fn item_key(item: &Value, names: &[&str]) -> Value {
    let mut key = Map::new();
    for name in names {
        match item.get(*name) {
            Some(value) => key.insert((*name).to_owned(), value.clone()),
            None if *name == "protocol" => key.insert((*name).to_owned(), json!("TCP")),
            None => None,
        };
    }
    Value::Object(key)
}

fn flatten(tree: &Value) -> Fields {
    fn walk(tree: &Value, path: &mut Vec<String>, found: &mut Fields, depth: usize) {
        match tree.as_object() {
            Some(map) if !map.is_empty() && depth < 64 => {
                for (key, value) in map {
                    path.push(key.clone());
                    walk(value, path, found, depth + 1);
                    path.pop();
                }
            }
            _ if !path.is_empty() => {
                found.insert(path.clone());
            }
            _ => {}
        }
    }
    let mut found = Fields::new();
    walk(tree, &mut Vec::new(), &mut found, 0);
    found
}

fn unflatten(fields: &Fields) -> Value {
    let mut tree = json!({});
    for path in fields {
        let mut at = &mut tree;
        for step in path {
            if at.get(step).is_none() {
                at[step] = json!({});
            }
            at = &mut at[step];
        }
    }
    tree
}

fn matches_key(item: &Value, key: &Value) -> bool {
    key.as_object().is_some_and(|key| {
        key.iter().all(|(name, value)| match item.get(name) {
            Some(found) => found == value,
            None => name == "protocol" && value == "TCP",
        })
    })
}

fn item_position(items: &[Value], step: &str) -> Option<usize> {
    match step.split_once(':')? {
        ("k", key) => {
            let key: Value = serde_json::from_str(key).ok()?;
            items.iter().position(|item| matches_key(item, &key))
        }
        ("v", value) => {
            let value: Value = serde_json::from_str(value).ok()?;
            items.iter().position(|item| *item == value)
        }
        _ => None,
    }
}

fn resolve<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| {
        if step == "." {
            return Some(value);
        }
        match step.strip_prefix("f:") {
            Some(name) => value.get(name),
            None => value
                .as_array()
                .and_then(|items| items.get(item_position(items, step)?)),
        }
    })
}

fn remove(value: &mut Value, path: &[String]) {
    let [step, rest @ ..] = path else { return };
    if let Some(name) = step.strip_prefix("f:") {
        if rest.is_empty() {
            if let Some(map) = value.as_object_mut() {
                map.shift_remove(name);
            }
        } else if let Some(inner) = value.get_mut(name) {
            remove(inner, rest);
            if inner.as_object().is_some_and(Map::is_empty)
                && let Some(map) = value.as_object_mut()
            {
                map.shift_remove(name);
            }
        }
        return;
    }
    let Some(items) = value.as_array_mut() else {
        return;
    };
    let Some(at) = item_position(items, step) else {
        return;
    };
    match rest {
        // An item whose applier lets go of it is removed with what defaults put into it.
        [] => {
            items.remove(at);
        }
        [dot] if dot == "." => {
            items.remove(at);
        }
        rest => {
            // The key fields hold the item together until it goes itself.
            let is_key = rest.len() == 1
                && step
                    .strip_prefix("k:")
                    .and_then(|key| serde_json::from_str::<Value>(key).ok())
                    .is_some_and(|key| {
                        rest[0]
                            .strip_prefix("f:")
                            .is_some_and(|name| key.get(name).is_some())
                    });
            if !is_key {
                remove(&mut items[at], rest);
            }
        }
    }
}

fn merge(current: &Value, config: &Value, place: Place<'_>) -> Value {
    let (Value::Object(current), Value::Object(config)) = (current, config) else {
        return config.clone();
    };
    let mut out = current.clone();
    for (key, new) in config {
        let merged = match (out.get(key), new) {
            (Some(old @ Value::Object(_)), Value::Object(_)) if !keys::atomic_map(place, key) => {
                merge(old, new, place.enter(key))
            }
            (Some(Value::Array(old)), Value::Array(items)) => merge_list(old, items, place, key),
            _ => new.clone(),
        };
        out.insert(key.clone(), merged);
    }
    Value::Object(out)
}

fn merge_list(old: &[Value], items: &[Value], place: Place<'_>, field: &str) -> Value {
    let mut out = old.to_vec();
    match keys::list(place, field) {
        List::Atomic => return json!(items),
        List::Set => {
            for item in items {
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
        }
        List::Map(names) => {
            for item in items {
                let key = item_key(item, names);
                match out.iter_mut().find(|old| matches_key(old, &key)) {
                    Some(old) => *old = merge(old, item, place.enter(field)),
                    None => out.push(item.clone()),
                }
            }
        }
    }
    Value::Array(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> &'static Kind {
        Kind::named("apps", "deployments")
    }

    fn deployment(replicas: Option<u32>, containers: &Value) -> Value {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": containers}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        object
    }

    #[test]
    fn applying_twice_changes_nothing_and_leaving_out_removes() {
        let config = deployment(
            Some(2),
            &json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
        );
        let created = first(kind(), &config, "me", "t0");
        let again = onto(kind(), &created, &config, "me", false, "t1").unwrap();
        assert_eq!(again, created);
        let mut defaulted = created;
        defaulted["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
        let less = deployment(None, &json!([{"name": "a", "image": "2"}]));
        let next = onto(kind(), &defaulted, &less, "me", false, "t1").unwrap();
        assert_eq!(
            next["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "2"}])
        );
        assert!(next["spec"].get("replicas").is_none());
    }

    #[test]
    fn two_managers_share_an_object_and_conflicts_name_the_other() {
        let created = first(
            kind(),
            &deployment(Some(2), &json!([{"name": "a", "image": "1"}])),
            "me",
            "t0",
        );
        let side = deployment(None, &json!([{"name": "side", "image": "s"}]));
        let both = onto(kind(), &created, &side, "you", false, "t1").unwrap();
        assert_eq!(
            both["spec"]["template"]["spec"]["containers"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(both["spec"]["replicas"], 2);
        let clash = deployment(Some(5), &json!([]));
        let conflicts = onto(kind(), &both, &clash, "you", false, "t2").unwrap_err();
        let error = conflict_error(kind(), "d", &conflicts);
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas"
        );
        let forced = onto(kind(), &both, &clash, "you", true, "t2").unwrap();
        assert_eq!(forced["spec"]["replicas"], 5);
        // "me" no longer owns it: leaving it out does not remove it.
        let mine = deployment(None, &json!([{"name": "a", "image": "1"}]));
        assert_eq!(
            onto(kind(), &forced, &mine, "me", false, "t3").unwrap()["spec"]["replicas"],
            5
        );
    }
}
