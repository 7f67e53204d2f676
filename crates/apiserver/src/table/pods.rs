//! The columns of pods; the rules are in the pod room.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, Printer};

const COLUMNS: &[Column] = &[
    NAME,
    ("Ready", "string", "", 0),
    ("Status", "string", "", 0),
    ("Restarts", "string", "", 0),
    AGE,
    ("IP", "string", "", 1),
    ("Node", "string", "", 1),
    ("Nominated Node", "string", "", 1),
    ("Readiness Gates", "string", "", 1),
];

pub(super) const PRINTER: Printer = Printer {
    columns: COLUMNS,
    cells,
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let pod: Pod = serde_json::from_value(object.clone()).unwrap_or_default();
    let columns = towline_pod::columns::pod_columns(&pod, now);
    vec![
        super::name(object),
        json!(columns.ready),
        json!(columns.status),
        json!(columns.restarts),
        json!(columns.age),
        json!(columns.ip),
        json!(columns.node),
        json!(columns.nominated_node),
        json!(columns.readiness_gates),
    ]
}
