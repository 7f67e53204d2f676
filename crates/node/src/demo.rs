//! The demo's workloads: `lab`'s scenarios made into images of the node's registry and objects of its API server.

mod access;

use std::net::SocketAddr;

use serde_json::Value;
use towline_lab::scenario::{Scenario, Workload};

pub use crate::lab::{Account, PublishError};
use crate::lab::{Scene, objects, publish};
pub use access::{access, resolver};

/// The namespace that the demo lives in.
pub const NAMESPACE: &str = "demo";

/// The objects of a scenario, in the order in which they are applied.
pub fn manifests(scenario: &Scenario, registry: SocketAddr, account: &Account) -> Vec<Value> {
    let scene = scene(scenario, registry);
    objects::manifests(scenario, &scene, account)
}

/// Pushes what the registry must hold for this scenario.
pub async fn publish(
    scenario: &Scenario,
    registry: SocketAddr,
    account: &Account,
) -> Result<(), PublishError> {
    let scene = scene(scenario, registry);
    publish::publish(scenario, &scene, account).await
}

fn scene(scenario: &Scenario, registry: SocketAddr) -> Scene {
    Scene {
        namespace: NAMESPACE.to_owned(),
        object: scenario.name.clone(),
        registry,
        cache: String::new(),
        host: registry.to_string(),
    }
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
