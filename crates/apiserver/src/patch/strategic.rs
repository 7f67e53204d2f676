//! Strategic merge patch: a merge patch that knows which lists are keyed, with its directives.

use serde_json::{Map, Value};

use super::keys::{self, List, Place};

/// Depth of a patch at most.
const MAX_DEPTH: usize = 64;

/// Why a patch cannot be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("the patch is not an object")]
    NotAnObject,
    #[error("the patch is nested too deeply")]
    TooDeep,
    #[error("map: {path} does not contain declared merge key: {key}")]
    NoKey { path: String, key: &'static str },
    #[error("unknown patch type {0:?} in a $patch directive")]
    Directive(String),
    #[error("invalid {0} directive")]
    Malformed(&'static str),
}

/// Applies a patch to an object.
pub(crate) fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::NotAnObject);
    };
    Ok(Value::Object(merge_map(
        object,
        patch,
        Place::default(),
        0,
    )?))
}

fn merge_map(
    object: &Map<String, Value>,
    patch: &Map<String, Value>,
    place: Place<'_>,
    depth: usize,
) -> Result<Map<String, Value>, PatchError> {
    if depth > MAX_DEPTH {
        return Err(PatchError::TooDeep);
    }
    match patch
        .get("$patch")
        .map(|value| value.as_str().unwrap_or_default())
    {
        Some("replace") => return Ok(clean_map(patch)),
        Some("delete") => return Ok(Map::new()),
        Some("merge") | None => {}
        Some(other) => return Err(PatchError::Directive(other.to_owned())),
    }
    let mut out = object.clone();
    if let Some(retain) = patch.get("$retainKeys") {
        let keys = retain
            .as_array()
            .ok_or(PatchError::Malformed("$retainKeys"))?;
        out.retain(|key, _| keys.iter().any(|kept| kept == key));
    }
    for (field, removed) in directives(patch, "$deleteFromPrimitiveList/") {
        let removed = removed
            .as_array()
            .ok_or(PatchError::Malformed("$deleteFromPrimitiveList"))?;
        if let Some(Value::Array(list)) = out.get_mut(field) {
            list.retain(|value| !removed.contains(value));
        }
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        match (out.get(key), value) {
            (_, Value::Null) => {
                out.shift_remove(key);
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                let deleted = new
                    .get("$patch")
                    .is_some_and(|directive| directive == "delete");
                let merged = merge_map(old, new, place.enter(key), depth + 1)?;
                if deleted {
                    out.shift_remove(key);
                } else {
                    out.insert(key.clone(), Value::Object(merged));
                }
            }
            (None | Some(_), Value::Object(new)) => {
                if new
                    .get("$patch")
                    .is_some_and(|directive| directive == "delete")
                {
                    out.shift_remove(key);
                } else {
                    let merged = merge_map(&Map::new(), new, place.enter(key), depth + 1)?;
                    out.insert(key.clone(), Value::Object(merged));
                }
            }
            (old, Value::Array(new)) => {
                let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let merged = merge_list(old, new, place, key, depth)?;
                out.insert(key.clone(), Value::Array(merged));
            }
            (_, value) => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    for (field, order) in directives(patch, "$setElementOrder/") {
        let order = order
            .as_array()
            .ok_or(PatchError::Malformed("$setElementOrder"))?;
        if let Some(Value::Array(items)) = out.get_mut(field) {
            reorder(items, order, keys::list(place, field));
        }
    }
    Ok(out)
}

fn directives<'a>(
    patch: &'a Map<String, Value>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    patch
        .iter()
        .filter_map(move |(key, value)| key.strip_prefix(prefix).map(|field| (field, value)))
}

fn merge_list(
    old: &[Value],
    new: &[Value],
    place: Place<'_>,
    field: &str,
    depth: usize,
) -> Result<Vec<Value>, PatchError> {
    let replaces = |item: &Value| {
        item.get("$patch")
            .is_some_and(|directive| directive == "replace")
    };
    if new
        .iter()
        .any(|item| replaces(item) && item.as_object().is_some_and(|map| map.len() == 1))
    {
        return Ok(new
            .iter()
            .filter(|item| !replaces(item))
            .map(clean)
            .collect());
    }
    match keys::list(place, field) {
        List::Atomic => Ok(new.iter().map(clean).collect()),
        List::Set => {
            let mut out = old.to_vec();
            for item in new {
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
            Ok(out)
        }
        List::Map(keys) => {
            let key = keys[0];
            let mut out = old.to_vec();
            for item in new {
                let Value::Object(patch) = item else {
                    return Err(PatchError::NotAnObject);
                };
                let Some(wanted) = patch.get(key) else {
                    return Err(PatchError::NoKey {
                        path: field.to_owned(),
                        key,
                    });
                };
                let same = |value: &Value| value.get(key) == Some(wanted);
                if patch
                    .get("$patch")
                    .is_some_and(|directive| directive == "delete")
                {
                    out.retain(|value| !same(value));
                    continue;
                }
                let at = out.iter().position(same);
                let empty = Map::new();
                let base = at.and_then(|at| out[at].as_object()).unwrap_or(&empty);
                let merged = Value::Object(merge_map(base, patch, place.enter(field), depth + 1)?);
                match at {
                    Some(at) => out[at] = merged,
                    None => out.push(merged),
                }
            }
            Ok(out)
        }
    }
}

/// Puts the listed items into the wanted order; items that are not listed keep their place relative to those before.
fn reorder(items: &mut Vec<Value>, order: &[Value], list: List) {
    let place = |item: &Value| match list {
        List::Map(keys) => {
            let key = keys[0];
            order
                .iter()
                .position(|wanted| wanted.get(key).is_some() && wanted.get(key) == item.get(key))
        }
        _ => order.iter().position(|wanted| wanted == item),
    };
    let mut last = 0;
    let mut ranked: Vec<(usize, usize, Value)> = Vec::new();
    for (at, item) in std::mem::take(items).into_iter().enumerate() {
        // An unlisted item follows the listed one before it.
        let rank = place(&item).map_or(last, |found| 2 * found + 1);
        if place(&item).is_some() {
            last = rank + 1;
        }
        ranked.push((rank, at, item));
    }
    ranked.sort_by_key(|(rank, at, _)| (*rank, *at));
    items.extend(ranked.into_iter().map(|(_, _, item)| item));
}

fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_map(map)),
        Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
        other => other.clone(),
    }
}

/// Without directives and nulls.
fn clean_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
        .map(|(key, value)| (key.clone(), clean(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn containers(list: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    fn check(table: &[(&str, Value, Value, Value)]) {
        for (what, object, patch, expected) in table {
            assert_eq!(merge(object, patch).as_ref(), Ok(expected), "{what}");
        }
    }

    #[test]
    fn fields_and_keyed_lists() {
        check(&[
            (
                "fields merge",
                json!({"a": 1, "b": {"c": 2}}),
                json!({"b": {"d": 3}}),
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
            ),
            (
                "null deletes",
                json!({"a": 1, "b": 2}),
                json!({"a": null}),
                json!({"b": 2}),
            ),
            (
                "containers merge by name",
                containers(&json!([{"name": "x", "image": "1"}, {"name": "y"}])),
                containers(&json!([{"name": "x", "image": "2"}])),
                containers(&json!([{"name": "x", "image": "2"}, {"name": "y"}])),
            ),
            (
                "a new container is added",
                containers(&json!([{"name": "x"}])),
                containers(&json!([{"name": "z"}])),
                containers(&json!([{"name": "x"}, {"name": "z"}])),
            ),
            (
                "a container is deleted",
                containers(&json!([{"name": "x"}, {"name": "y"}])),
                containers(&json!([{"name": "x", "$patch": "delete"}])),
                containers(&json!([{"name": "y"}])),
            ),
            (
                "a list is replaced",
                containers(&json!([{"name": "x"}])),
                containers(&json!([{"$patch": "replace"}, {"name": "n"}])),
                containers(&json!([{"name": "n"}])),
            ),
            (
                "args are atomic",
                containers(&json!([{"name": "x", "args": ["1", "2"]}])),
                containers(&json!([{"name": "x", "args": ["3"]}])),
                containers(&json!([{"name": "x", "args": ["3"]}])),
            ),
            (
                "env merges by name",
                containers(&json!([{"name": "x", "env": [{"name": "A", "value": "1"}]}])),
                containers(&json!([{"name": "x", "env": [{"name": "B", "value": "2"}]}])),
                containers(
                    &json!([{"name": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
                ),
            ),
        ]);
    }

    #[test]
    fn lists_by_other_keys_sets_and_directives() {
        check(&[
            (
                "container ports by containerPort",
                containers(&json!([{"name": "x", "ports": [{"containerPort": 1, "name": "a"}]}])),
                containers(&json!([{"name": "x", "ports": [{"containerPort": 1, "name": "b"}]}])),
                containers(&json!([{"name": "x", "ports": [{"containerPort": 1, "name": "b"}]}])),
            ),
            (
                "service ports by port",
                json!({"spec": {"ports": [{"port": 1}]}}),
                json!({"spec": {"ports": [{"port": 2}]}}),
                json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
            ),
            (
                "conditions by type",
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
            (
                "container statuses are atomic",
                json!({"status": {"containerStatuses": [{"name": "a"}]}}),
                json!({"status": {"containerStatuses": [{"name": "b"}]}}),
                json!({"status": {"containerStatuses": [{"name": "b"}]}}),
            ),
            (
                "finalizers are a set",
                json!({"metadata": {"finalizers": ["a"]}}),
                json!({"metadata": {"finalizers": ["b", "a"]}}),
                json!({"metadata": {"finalizers": ["a", "b"]}}),
            ),
            (
                "finalizers are taken out",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
                json!({"metadata": {"finalizers": ["b"]}}),
            ),
            (
                "keys are retained",
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                "a map is replaced",
                json!({"a": {"b": 1}}),
                json!({"a": {"$patch": "replace", "c": 2}}),
                json!({"a": {"c": 2}}),
            ),
            (
                "a map is deleted",
                json!({"a": {"b": 1}}),
                json!({"a": {"$patch": "delete"}}),
                json!({}),
            ),
            (
                "order is set",
                containers(&json!([{"name": "x"}, {"name": "y"}])),
                json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "y"}, {"name": "x"}],
                    "containers": [{"name": "y", "image": "1"}]}}}}),
                containers(&json!([{"name": "y", "image": "1"}, {"name": "x"}])),
            ),
            (
                "nulls of new maps vanish",
                json!({}),
                json!({"a": {"b": null, "c": 1}}),
                json!({"a": {"c": 1}}),
            ),
        ]);
    }

    #[test]
    fn pull_secrets_are_merged_in_a_pod_alone() {
        check(&[
            (
                "pull secrets of a pod by name",
                json!({"spec": {"imagePullSecrets": [{"name": "a"}]}}),
                json!({"spec": {"imagePullSecrets": [{"name": "b"}]}}),
                json!({"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}}),
            ),
            (
                "those of a service account as a whole",
                json!({"imagePullSecrets": [{"name": "a"}]}),
                json!({"imagePullSecrets": [{"name": "b"}]}),
                json!({"imagePullSecrets": [{"name": "b"}]}),
            ),
        ]);
    }

    #[test]
    fn bad_patches_are_refused() {
        assert_eq!(merge(&json!({}), &json!([])), Err(PatchError::NotAnObject));
        let nameless = containers(&json!([{"image": "1"}]));
        assert_eq!(
            merge(&containers(&json!([])), &nameless),
            Err(PatchError::NoKey {
                path: "containers".to_owned(),
                key: "name"
            })
        );
        assert_eq!(
            merge(&json!({"a": {}}), &json!({"a": {"$patch": "x"}})),
            Err(PatchError::Directive("x".to_owned()))
        );
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"a": deep});
        }
        assert_eq!(merge(&json!({}), &deep), Err(PatchError::TooDeep));
    }
}
