//! Events have two faces over one storage: `v1` and `events.k8s.io/v1`. The core form is stored.

use serde_json::{Map, Value, json};

/// Fields of the core form and what the newer API calls them.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The stored event as `events.k8s.io/v1` shows it.
pub(super) fn from_core(stored: &Value) -> Value {
    rename(stored.clone(), "events.k8s.io/v1", |name| {
        NAMES
            .iter()
            .find(|(core, _)| *core == name)
            .map(|(_, new)| *new)
    })
}

/// An event of `events.k8s.io/v1` as it is stored.
pub(super) fn to_core(event: Value) -> Value {
    rename(event, "v1", |name| {
        NAMES
            .iter()
            .find(|(_, new)| *new == name)
            .map(|(core, _)| *core)
    })
}

fn rename(event: Value, version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = event else {
        return event;
    };
    let mut out = Map::new();
    for (key, value) in fields {
        let key = name(&key).map_or(key, str::to_owned);
        out.insert(key, value);
    }
    out.insert("apiVersion".to_owned(), json!(version));
    out.insert("kind".to_owned(), json!("Event"));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_are_one_event() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "m", "count": 3,
            "involvedObject": {"kind": "Pod"}, "source": {"component": "kubelet"}, "type": "Normal"});
        let new = from_core(&core);
        assert_eq!(new["note"], "m");
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(new["deprecatedCount"], 3);
        assert_eq!(to_core(new), core);
    }
}
