//! The objects of the demo, as a person would have written them.

use std::net::SocketAddr;

use serde_json::{Value, json};
use towline_lab::scenario::{PullSecret, Scenario, Workload};

use super::NAMESPACE;

/// The objects of a scenario, in the order in which they are applied.
pub fn manifests(scenario: &Scenario, registry: SocketAddr) -> Vec<Value> {
    let image = scenario.image.replace("{registry}", &registry.to_string());
    let mut objects = Vec::new();
    let mut spec = json!({
        "terminationGracePeriodSeconds": 2,
        "containers": [{ "name": "app", "image": image, "imagePullPolicy": "IfNotPresent" }],
    });
    if scenario.secret != PullSecret::None {
        let name = secret_name(scenario);
        spec["imagePullSecrets"] = json!([{ "name": name }]);
        if scenario.secret == PullSecret::WrongHost {
            objects.push(secret(&name, "registry.elsewhere.test"));
        }
    }
    let labels = json!({ "app": scenario.name });
    let metadata = json!({ "name": scenario.name, "namespace": NAMESPACE, "labels": labels });
    objects.push(match scenario.workload {
        Workload::Pod => {
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
        }
        Workload::Deployment => json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": spec },
            },
        }),
    });
    objects
}

/// Whether a pod of this name belongs to the scenario: its own name, or a Deployment's name and a suffix.
pub fn pods(scenario: &Scenario, pod: &str) -> bool {
    match scenario.workload {
        Workload::Pod => pod == scenario.name,
        Workload::Deployment => pod
            .strip_prefix(&scenario.name)
            .is_some_and(|rest| rest.starts_with('-')),
    }
}

fn secret_name(scenario: &Scenario) -> String {
    match scenario.secret {
        PullSecret::WrongHost => "elsewhere".to_owned(),
        PullSecret::Missing | PullSecret::None => "ghost".to_owned(),
    }
}

/// The demo's login, filed under a host that is not the registry's.
fn secret(name: &str, host: &str) -> Value {
    let config = json!({ "auths": { host: { "username": "demo", "password": "demo" } } });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_becomes_objects_that_parse() {
        let registry: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        for scenario in towline_lab::scenario::all() {
            let objects = manifests(&scenario, registry);
            let workload = objects.last().unwrap().clone();
            match scenario.workload {
                Workload::Pod => {
                    serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(workload).unwrap();
                    assert!(pods(&scenario, &scenario.name));
                }
                Workload::Deployment => {
                    serde_json::from_value::<k8s_openapi::api::apps::v1::Deployment>(workload)
                        .unwrap();
                    assert!(pods(&scenario, &format!("{}-abc-x", scenario.name)));
                }
            }
        }
    }
}
