//! Columns of the core kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, name, number, or_none, pods, since};
use crate::kinds::Kind;

/// The printer of a kind of the core group, of events or leases.
pub(super) fn printer(kind: &Kind) -> Option<Printer> {
    Some(match (kind.group, kind.plural) {
        ("", "pods") => pods::PRINTER,
        ("", "namespaces") => Printer {
            columns: &[NAME, ("Status", "string", "", 0), AGE],
            cells: |o, now| vec![name(o), json!(or_none(&o["status"]["phase"])), age(o, now)],
        },
        ("", "nodes") => Printer {
            columns: NODES,
            cells: node,
        },
        ("", "secrets") => Printer {
            columns: &[
                NAME,
                ("Type", "string", "", 0),
                ("Data", "string", "", 0),
                AGE,
            ],
            cells: |o, now| {
                vec![
                    name(o),
                    json!(or_none(&o["type"])),
                    json!(count(&o["data"])),
                    age(o, now),
                ]
            },
        },
        ("", "configmaps") => Printer {
            columns: &[NAME, ("Data", "string", "", 0), AGE],
            cells: |o, now| {
                vec![
                    name(o),
                    json!(count(&o["data"]) + count(&o["binaryData"])),
                    age(o, now),
                ]
            },
        },
        ("", "serviceaccounts") => Printer {
            columns: &[NAME, AGE],
            cells: |o, now| vec![name(o), age(o, now)],
        },
        ("", "services") => Printer {
            columns: SERVICES,
            cells: service,
        },
        ("", "events") => Printer {
            columns: EVENT_COLUMNS,
            cells: core_event,
        },
        ("events.k8s.io", "events") => Printer {
            columns: EVENT_COLUMNS,
            cells: new_event,
        },
        ("coordination.k8s.io", "leases") => Printer {
            columns: &[NAME, ("Holder", "string", "", 0), AGE],
            cells: |o, now| {
                vec![
                    name(o),
                    json!(or_none(&o["spec"]["holderIdentity"])),
                    age(o, now),
                ]
            },
        },
        _ => return None,
    })
}

const NODES: &[super::Column] = &[
    NAME,
    ("Status", "string", "", 0),
    ("Roles", "string", "", 0),
    AGE,
    ("Version", "string", "", 0),
    ("Internal-IP", "string", "", 1),
    ("External-IP", "string", "", 1),
    ("OS-Image", "string", "", 1),
    ("Kernel-Version", "string", "", 1),
    ("Container-Runtime", "string", "", 1),
];

const SERVICES: &[super::Column] = &[
    NAME,
    ("Type", "string", "", 0),
    ("Cluster-IP", "string", "", 0),
    ("External-IP", "string", "", 0),
    ("Port(s)", "string", "", 0),
    AGE,
    ("Selector", "string", "", 1),
];

const EVENT_COLUMNS: &[super::Column] = &[
    ("Last Seen", "string", "", 0),
    ("Type", "string", "", 0),
    ("Reason", "string", "", 0),
    ("Object", "string", "", 0),
    ("Subobject", "string", "", 1),
    ("Source", "string", "", 1),
    ("Message", "string", "", 0),
    ("First Seen", "string", "", 1),
    ("Count", "string", "", 1),
    ("Name", "string", "name", 1),
];

fn count(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = o["status"]["conditions"].as_array();
    let ready =
        conditions.and_then(|list| list.iter().find(|condition| condition["type"] == "Ready"));
    let mut status = match ready.map(|condition| condition["status"].as_str().unwrap_or_default()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if o["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = o["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            key.strip_prefix("node-role.kubernetes.io/")
                .filter(|role| !role.is_empty())
                .or_else(|| {
                    (key == "kubernetes.io/role").then(|| value.as_str().unwrap_or_default())
                })
        })
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    };
    let address = |wanted: &str| {
        o["status"]["addresses"]
            .as_array()
            .and_then(|list| list.iter().find(|address| address["type"] == wanted))
            .map_or_else(
                || "<none>".to_owned(),
                |address| or_none(&address["address"]),
            )
    };
    let info = |field: &str| match or_none(&o["status"]["nodeInfo"][field]).as_str() {
        "<none>" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        name(o),
        json!(status),
        json!(roles),
        age(o, now),
        json!(or_none(&o["status"]["nodeInfo"]["kubeletVersion"])),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let external = match spec["type"].as_str() {
        Some("ExternalName") => or_none(&spec["externalName"]),
        Some("LoadBalancer") => "<pending>".to_owned(),
        _ => "<none>".to_owned(),
    };
    let ports: Vec<String> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let node = port["nodePort"]
                .as_u64()
                .filter(|port| *port > 0)
                .map_or(String::new(), |p| format!(":{p}"));
            format!(
                "{}{node}/{}",
                port["port"],
                port["protocol"].as_str().unwrap_or("TCP")
            )
        })
        .collect();
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    };
    vec![
        name(o),
        json!(or_none(&spec["type"])),
        json!(or_none(&spec["clusterIP"])),
        json!(external),
        json!(ports),
        age(o, now),
        json!(super::labels(&spec["selector"])),
    ]
}

/// The parts of an event that both of its forms have, under their own names.
struct Event<'a> {
    object: &'a Value,
    message: &'a Value,
    source: &'a Value,
    reporter: &'a Value,
    instance: &'a Value,
    first: &'a Value,
    last: &'a Value,
    count: &'a Value,
}

fn core_event(o: &Value, now: Timestamp) -> Vec<Value> {
    let event = Event {
        object: &o["involvedObject"],
        message: &o["message"],
        source: &o["source"],
        reporter: &o["reportingComponent"],
        instance: &o["reportingInstance"],
        first: &o["firstTimestamp"],
        last: &o["lastTimestamp"],
        count: &o["count"],
    };
    event_cells(o, &event, now)
}

fn new_event(o: &Value, now: Timestamp) -> Vec<Value> {
    let event = Event {
        object: &o["regarding"],
        message: &o["note"],
        source: &o["deprecatedSource"],
        reporter: &o["reportingController"],
        instance: &o["reportingInstance"],
        first: &o["deprecatedFirstTimestamp"],
        last: &o["deprecatedLastTimestamp"],
        count: &o["deprecatedCount"],
    };
    event_cells(o, &event, now)
}

fn event_cells(o: &Value, event: &Event<'_>, now: Timestamp) -> Vec<Value> {
    let first = if event.first.is_string() {
        since(event.first, now)
    } else {
        since(&o["eventTime"], now)
    };
    let last = if event.last.is_string() {
        since(event.last, now)
    } else {
        first.clone()
    };
    let (last, count) = match o["series"].as_object() {
        Some(series) => (
            since(
                &series.get("lastObservedTime").cloned().unwrap_or_default(),
                now,
            ),
            series.get("count").map_or(1, number),
        ),
        None => (last, number(event.count).max(1)),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&event.object["kind"]).to_lowercase();
    let target = text(&event.object["name"]);
    let target = if target.is_empty() {
        kind
    } else {
        format!("{kind}/{target}")
    };
    let component = text(&event.source["component"]);
    let (component, host) = if component.is_empty() {
        (text(event.reporter), text(event.instance))
    } else {
        (component, text(&event.source["host"]))
    };
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        json!(last),
        o["type"].clone(),
        o["reason"].clone(),
        json!(target),
        json!(text(&event.object["fieldPath"])),
        json!(source),
        json!(text(event.message).trim()),
        json!(first),
        json!(count),
        name(o),
    ]
}
