//! Columns of kinds that are only kept.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, name, number, or_none};
use crate::kinds::Kind;

/// The printer of one of the other kinds that has columns of its own.
pub(super) fn printer(kind: &Kind) -> Option<Printer> {
    Some(match (kind.group, kind.plural) {
        ("", "persistentvolumeclaims") => Printer {
            columns: CLAIMS,
            cells: claims,
        },
        ("networking.k8s.io", "ingresses") => Printer {
            columns: INGRESSES,
            cells: ingresses,
        },
        ("autoscaling", "horizontalpodautoscalers") => Printer {
            columns: AUTOSCALERS,
            cells: autoscalers,
        },
        ("scheduling.k8s.io", "priorityclasses") => Printer {
            columns: &[
                NAME,
                ("Value", "integer", "", 0),
                ("Global-Default", "boolean", "", 0),
                AGE,
            ],
            cells: |o, now| {
                vec![
                    name(o),
                    o["value"].clone(),
                    json!(o["globalDefault"].as_bool().unwrap_or(false)),
                    age(o, now),
                ]
            },
        },
        ("node.k8s.io", "runtimeclasses") => Printer {
            columns: &[NAME, ("Handler", "string", "", 0), AGE],
            cells: |o, now| vec![name(o), o["handler"].clone(), age(o, now)],
        },
        ("", _)
        | (
            _,
            "roles"
            | "rolebindings"
            | "clusterroles"
            | "clusterrolebindings"
            | "networkpolicies"
            | "storageclasses"
            | "endpointslices"
            | "poddisruptionbudgets",
        ) => Printer {
            columns: &[NAME, AGE],
            cells: |o, now| vec![name(o), age(o, now)],
        },
        _ => return None,
    })
}

fn list(value: &Value) -> String {
    let texts: Vec<&str> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    texts.join(",")
}

const CLAIMS: &[super::Column] = &[
    NAME,
    ("Status", "string", "", 0),
    ("Volume", "string", "", 0),
    ("Capacity", "string", "", 0),
    ("Access Modes", "string", "", 0),
    ("StorageClass", "string", "", 0),
    AGE,
];

fn claims(o: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![
        name(o),
        json!(or_none(&o["status"]["phase"])),
        o["spec"]["volumeName"].clone(),
        o["status"]["capacity"]["storage"].clone(),
        json!(list(&o["spec"]["accessModes"])),
        o["spec"]["storageClassName"].clone(),
        age(o, now),
    ]
}

const INGRESSES: &[super::Column] = &[
    NAME,
    ("Class", "string", "", 0),
    ("Hosts", "string", "", 0),
    ("Address", "string", "", 0),
    ("Ports", "string", "", 0),
    AGE,
];

fn ingresses(o: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let hosts: Vec<&str> = o["spec"]["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["host"].as_str())
        .collect();
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        hosts.join(",")
    };
    let ports = if o["spec"]["tls"].is_array() {
        "80, 443"
    } else {
        "80"
    };
    vec![
        name(o),
        json!(or_none(&o["spec"]["ingressClassName"])),
        json!(hosts),
        json!(""),
        json!(ports),
        age(o, now),
    ]
}

const AUTOSCALERS: &[super::Column] = &[
    NAME,
    ("Reference", "string", "", 0),
    ("Targets", "string", "", 0),
    ("MinPods", "string", "", 0),
    ("MaxPods", "string", "", 0),
    ("Replicas", "string", "", 0),
    AGE,
];

fn autoscalers(o: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let target = &o["spec"]["scaleTargetRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reference = format!("{}/{}", text(&target["kind"]), text(&target["name"]));
    vec![
        name(o),
        json!(reference),
        json!("<unknown>"),
        json!(or_none(&o["spec"]["minReplicas"])),
        json!(number(&o["spec"]["maxReplicas"])),
        json!(number(&o["status"]["currentReplicas"])),
        age(o, now),
    ]
}
