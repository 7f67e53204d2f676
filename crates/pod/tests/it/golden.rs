//! Statuses, columns and texts of a Kubernetes 1.36 node with containerd, recomputed from its own record.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use serde_json::{Value, json};
use towline_pod::phase::pod_phase;
use towline_pod::{columns, conditions, defaults, pull, status};

/// The recorded pods; `None`, said aloud, without the record.
fn record() -> Option<Vec<Value>> {
    let Some(folder) = std::env::var_os("TOWLINE_SHARED") else {
        eprintln!("skipped: needs TOWLINE_SHARED");
        return None;
    };
    let path = PathBuf::from(folder).join("goldens/kubelet-1.36-containerd-2.1.jsonl");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

fn spec(pod: &Value) -> PodSpec {
    let mut spec: PodSpec = serde_json::from_value(pod["spec"].clone()).unwrap();
    defaults::pod_spec(&mut spec);
    spec
}

/// The recorded statuses of these containers, in the kubelet's order.
fn statuses(recorded: &Value, names: &[&str]) -> Vec<ContainerStatus> {
    let Some(map) = recorded["containers"].as_object() else {
        return Vec::new();
    };
    names
        .iter()
        .filter_map(|name| map.get(*name).map(|status| (name, status)))
        .map(|(name, recorded)| {
            let mut value = recorded.clone();
            value["name"] = json!(name);
            serde_json::from_value(value).unwrap()
        })
        .collect()
}

fn parts(spec: &PodSpec, recorded: &Value) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let init: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| c.name.as_str())
        .collect();
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let mut containers = statuses(recorded, &names);
    status::sort(&mut containers);
    (statuses(recorded, &init), containers)
}

#[test]
fn phases_and_conditions() {
    let Some(pods) = record() else { return };
    let mut checked = 0;
    for recorded_pod in &pods {
        let spec = spec(recorded_pod);
        for recorded in recorded_pod["status"].as_array().unwrap() {
            let (init, containers) = parts(&spec, recorded);
            // The pod's end keeps the conditions of before; before the kubelet's first status there is none.
            if containers.is_empty() || recorded["phase"] == "Failed" {
                continue;
            }
            let phase = pod_phase(&spec, &init, &containers, false);
            assert_eq!(phase.as_str(), recorded["phase"], "{}", recorded_pod["pod"]);
            let pod = Pod {
                spec: Some(spec.clone()),
                ..Pod::default()
            };
            let facts = conditions::Facts {
                pod: &pod,
                init: &init,
                containers: Some(&containers),
                phase,
                sandbox_ready: recorded["conditions"]["PodReadyToStartContainers"][0] == "True",
            };
            for condition in conditions::all(&facts) {
                let found = json!([condition.status, condition.reason, condition.message]);
                assert_eq!(
                    found, recorded["conditions"][&condition.type_],
                    "{}",
                    recorded_pod["pod"]
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn columns_of_kubectl() {
    let Some(pods) = record() else { return };
    for recorded_pod in &pods {
        let spec = spec(recorded_pod);
        let computed: Vec<(String, String)> = recorded_pod["status"]
            .as_array()
            .unwrap()
            .iter()
            .map(|recorded| {
                let (init, containers) = parts(&spec, recorded);
                let pod: Pod = serde_json::from_value(json!({"spec": recorded_pod["spec"], "status": {
                    "phase": recorded["phase"], "initContainerStatuses": init, "containerStatuses": containers}}))
                .unwrap();
                let row = columns::pod_columns(&pod, jiff::Timestamp::UNIX_EPOCH);
                (row.ready, row.status)
            })
            .collect();
        let mut rest = computed.iter();
        for seen in recorded_pod["get"].as_array().unwrap() {
            let seen = (
                seen[1].as_str().unwrap().to_owned(),
                seen[2].as_str().unwrap().to_owned(),
            );
            // A deletion is not in the recorded statuses.
            if seen.1 != "Terminating" {
                assert!(
                    rest.any(|row| *row == seen),
                    "{} {seen:?} in {computed:?}",
                    recorded_pod["pod"]
                );
            }
        }
    }
}

/// Containers of a recorded status that wait, with reason and message.
fn waiting(recorded: &Value) -> Vec<(&str, &str, &str)> {
    let map = recorded["containers"].as_object();
    map.into_iter()
        .flatten()
        .filter_map(|(name, status)| {
            let waiting = &status["state"]["waiting"];
            Some((
                name.as_str(),
                waiting["reason"].as_str()?,
                waiting["message"].as_str().unwrap_or_default(),
            ))
        })
        .collect()
}

#[test]
fn waiting_reasons_and_messages() {
    let Some(pods) = record() else { return };
    let mut checked = 0;
    for recorded_pod in &pods {
        let spec = spec(recorded_pod);
        let image = |name: &str| {
            let mut all = spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers);
            all.find(|container| container.name == name)
                .unwrap()
                .image
                .clone()
                .unwrap()
        };
        let mut last_error = None;
        for recorded in recorded_pod["status"].as_array().unwrap() {
            for (name, reason, message) in waiting(recorded) {
                let expected = match reason {
                    "ErrImagePull" => {
                        last_error = Some(message.to_owned());
                        pull::failed(&image(name), message)
                    }
                    "ImagePullBackOff" => {
                        let remembered = last_error
                            .as_ref()
                            .map(|error| format!("ErrImagePull: {error}"));
                        pull::backing_off(&image(name), remembered.as_deref())
                    }
                    "ErrImageNeverPull" => pull::never_pull(&image(name)),
                    "InvalidImageName" => pull::runtime_name(&image(name)).unwrap_err(),
                    "ContainerCreating" | "PodInitializing" => continue,
                    other => pull::credentials_failed(other),
                };
                assert_eq!(
                    (expected.reason.as_str(), expected.message.as_str()),
                    (reason, message)
                );
                for event in &expected.events {
                    let written =
                        recorded_pod["events"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .any(|recorded| {
                                recorded["type"] == event.type_.as_str()
                                    && recorded["reason"] == *event.reason
                                    && recorded["message"] == *event.message
                            });
                    assert!(written, "{} {event:?}", recorded_pod["pod"]);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked}");
}
