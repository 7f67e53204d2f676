//! Columns of the workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, Printer, age, labels, name, number, or_none, since};
use crate::kinds::Kind;

const CONTAINERS: Column = ("Containers", "string", "", 1);
const IMAGES: Column = ("Images", "string", "", 1);
const SELECTOR: Column = ("Selector", "string", "", 1);

const DEPLOYMENT: &[Column] = &[
    NAME,
    ("Ready", "string", "", 0),
    ("Up-to-date", "string", "", 0),
    ("Available", "string", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const REPLICAS: &[Column] = &[
    NAME,
    ("Desired", "integer", "", 0),
    ("Current", "integer", "", 0),
    ("Ready", "integer", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const DAEMON_SET: &[Column] = &[
    NAME,
    ("Desired", "integer", "", 0),
    ("Current", "integer", "", 0),
    ("Ready", "integer", "", 0),
    ("Up-to-date", "integer", "", 0),
    ("Available", "integer", "", 0),
    ("Node Selector", "string", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const JOB: &[Column] = &[
    NAME,
    ("Status", "string", "", 0),
    ("Completions", "string", "", 0),
    ("Duration", "string", "", 0),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CRON_JOB: &[Column] = &[
    NAME,
    ("Schedule", "string", "", 0),
    ("Timezone", "string", "", 0),
    ("Suspend", "boolean", "", 0),
    ("Active", "integer", "", 0),
    ("Last Schedule", "string", "", 0),
    AGE,
];

/// The printer of a workload.
pub(super) fn printer(kind: &Kind) -> Option<Printer> {
    Some(match kind.plural {
        "deployments" => Printer {
            columns: DEPLOYMENT,
            cells: deployment,
        },
        "replicasets" | "replicationcontrollers" => Printer {
            columns: REPLICAS,
            cells: replicas,
        },
        "statefulsets" => Printer {
            columns: &[NAME, ("Ready", "string", "", 0), AGE, CONTAINERS, IMAGES],
            cells: |o, now| {
                let ready = format!(
                    "{}/{}",
                    number(&o["status"]["readyReplicas"]),
                    number(&o["spec"]["replicas"])
                );
                let (containers, images) = template(o);
                vec![
                    name(o),
                    json!(ready),
                    age(o, now),
                    json!(containers),
                    json!(images),
                ]
            },
        },
        "daemonsets" => Printer {
            columns: DAEMON_SET,
            cells: daemon_set,
        },
        "jobs" => Printer {
            columns: JOB,
            cells: job,
        },
        "cronjobs" => Printer {
            columns: CRON_JOB,
            cells: cron_job,
        },
        _ => return None,
    })
}

/// Names and images of a template's containers.
fn template(o: &Value) -> (String, String) {
    let containers = o["spec"]["template"]["spec"]["containers"].as_array();
    let join = |field: &str| {
        let list: Vec<&str> = containers
            .into_iter()
            .flatten()
            .filter_map(|c| c[field].as_str())
            .collect();
        list.join(",")
    };
    (join("name"), join("image"))
}

fn selector(o: &Value) -> String {
    labels(&o["spec"]["selector"]["matchLabels"])
}

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let ready = format!(
        "{}/{}",
        number(&status["readyReplicas"]),
        number(&o["spec"]["replicas"])
    );
    let (containers, images) = template(o);
    vec![
        name(o),
        json!(ready),
        json!(number(&status["updatedReplicas"])),
        json!(number(&status["availableReplicas"])),
        age(o, now),
        json!(containers),
        json!(images),
        json!(selector(o)),
    ]
}

fn replicas(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let (containers, images) = template(o);
    let selector = if o["spec"]["selector"]["matchLabels"].is_object() {
        selector(o)
    } else {
        labels(&o["spec"]["selector"])
    };
    vec![
        name(o),
        json!(number(&o["spec"]["replicas"])),
        json!(number(&status["replicas"])),
        json!(number(&status["readyReplicas"])),
        age(o, now),
        json!(containers),
        json!(images),
        json!(selector),
    ]
}

fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let (containers, images) = template(o);
    vec![
        name(o),
        json!(number(&status["desiredNumberScheduled"])),
        json!(number(&status["currentNumberScheduled"])),
        json!(number(&status["numberReady"])),
        json!(number(&status["updatedNumberScheduled"])),
        json!(number(&status["numberAvailable"])),
        json!(labels(&o["spec"]["template"]["spec"]["nodeSelector"])),
        age(o, now),
        json!(containers),
        json!(images),
        json!(selector(o)),
    ]
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = o["status"]["conditions"].as_array();
    let has = |wanted: &str| {
        conditions.is_some_and(|list| {
            list.iter()
                .any(|c| c["type"] == wanted && c["status"] == "True")
        })
    };
    let state = ["Complete", "Failed", "Suspended"]
        .into_iter()
        .find(|state| has(state))
        .unwrap_or("Running");
    let completions = format!(
        "{}/{}",
        number(&o["status"]["succeeded"]),
        o["spec"]["completions"].as_i64().unwrap_or(1)
    );
    let started = &o["status"]["startTime"];
    let duration = if started.is_string() {
        since(started, now)
    } else {
        String::new()
    };
    let (containers, images) = template(o);
    vec![
        name(o),
        json!(state),
        json!(completions),
        json!(duration),
        age(o, now),
        json!(containers),
        json!(images),
        json!(selector(o)),
    ]
}

fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let active = o["status"]["active"].as_array().map_or(0, Vec::len);
    let last = &o["status"]["lastScheduleTime"];
    let last = if last.is_string() {
        since(last, now)
    } else {
        "<none>".to_owned()
    };
    let suspend = o["spec"]["suspend"].as_bool().unwrap_or(false);
    vec![
        name(o),
        o["spec"]["schedule"].clone(),
        json!(or_none(&o["spec"]["timeZone"])),
        json!(suspend),
        json!(active),
        json!(last),
        age(o, now),
    ]
}
