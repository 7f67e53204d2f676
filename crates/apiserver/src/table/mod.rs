//! Tables: the columns that `kubectl get` prints, computed here as Kubernetes does.

mod core;
mod other;
mod pods;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::request::Query;

/// One column: name, type, format, priority (1 is for `-o wide`).
pub(super) type Column = (&'static str, &'static str, &'static str, u8);

/// What each row says of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn of(query: &Query) -> Self {
        match query.get("includeObject") {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

pub(super) const NAME: Column = ("Name", "string", "name", 0);
pub(super) const AGE: Column = ("Age", "string", "", 0);

/// How a kind is printed.
pub(super) struct Printer {
    pub(super) columns: &'static [Column],
    pub(super) cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const PLAIN: Printer = Printer {
    columns: &[NAME, ("Created At", "date", "", 0)],
    cells: |object, _| {
        vec![
            object["metadata"]["name"].clone(),
            object["metadata"]["creationTimestamp"].clone(),
        ]
    },
};

fn printer(kind: &Kind) -> Printer {
    core::printer(kind)
        .or_else(|| workloads::printer(kind))
        .or_else(|| other::printer(kind))
        .unwrap_or(PLAIN)
}

/// A row for a presented object.
pub(crate) fn row(kind: &Kind, object: &Value, include: Include) -> Value {
    let cells = (printer(kind).cells)(object, Timestamp::now());
    let mut row = json!({"cells": cells});
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = crate::handlers::partial(object),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// A table of rows.
pub(crate) fn table(kind: &Kind, rows: &[Value], metadata: &Value, columns: bool) -> Value {
    let definitions: Vec<Value> = if columns {
        printer(kind)
            .columns
            .iter()
            .map(|(name, kind, format, priority)| {
                json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
            })
            .collect()
    } else {
        Vec::new()
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// Time since a timestamp in the object, as kubectl prints ages.
pub(super) fn since(value: &Value, now: Timestamp) -> String {
    match value
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok())
    {
        Some(time) => towline_pod::duration::human(now.duration_since(time)),
        None => "<unknown>".to_owned(),
    }
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

pub(super) fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// Text of a field, or `<none>`.
pub(super) fn or_none(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => "<none>".to_owned(),
    }
}

pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::KINDS;

    #[test]
    fn every_kind_prints_as_many_cells_as_columns() {
        for kind in KINDS {
            let object =
                json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let cells = (printer(kind).cells)(&object, Timestamp::now());
            assert_eq!(
                cells.len(),
                printer(kind).columns.len(),
                "{}",
                kind.qualified()
            );
            let rows = [row(kind, &object, Include::Metadata)];
            assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
            assert!(
                table(kind, &rows, &json!({}), false)["columnDefinitions"]
                    .as_array()
                    .unwrap()
                    .is_empty()
            );
        }
    }
}
