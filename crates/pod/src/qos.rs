//! The quality-of-service class of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::quantity::milli;

/// `Guaranteed`, `Burstable` or `BestEffort`, by the CPU and memory of all containers and init containers.
pub fn class(spec: &PodSpec) -> &'static str {
    let containers = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    if containers().all(|container| {
        counted(container, false).is_empty() && counted(container, true).is_empty()
    }) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|container| {
        let limits = counted(container, true);
        let requests = counted(container, false);
        limits.len() == 2
            && requests
                .iter()
                .all(|(name, request)| limits.get(name) == Some(request))
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// CPU and memory that are asked for, without zeros.
fn counted(container: &Container, limits: bool) -> BTreeMap<&str, i128> {
    let resources = container.resources.as_ref();
    let map = resources.and_then(|r| {
        if limits {
            r.limits.as_ref()
        } else {
            r.requests.as_ref()
        }
    });
    map.into_iter()
        .flatten()
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .filter_map(|(name, quantity)| Some((name.as_str(), milli(&quantity.0)?)))
        .filter(|(_, amount)| *amount != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let only_limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let same = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let part = json!({"limits": {"cpu": "1"}});
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        let zero = json!({"requests": {"cpu": "0", "memory": "0Mi"}});
        let other = json!({"limits": {"nvidia.com/gpu": "1"}});
        for (containers, class) in [
            (vec![json!({})], "BestEffort"),
            (vec![zero], "BestEffort"),
            (vec![other], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![only_limits], "Guaranteed"),
            (vec![same], "Guaranteed"),
            (vec![full.clone(), json!({})], "Burstable"),
            (vec![part], "Burstable"),
            (vec![less], "Burstable"),
        ] {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|r| json!({"name": "c", "resources": r}))
                .collect();
            let spec: PodSpec = serde_json::from_value(json!({"containers": containers})).unwrap();
            assert_eq!(super::class(&spec), class, "{containers:?}");
        }
        let spec: PodSpec = serde_json::from_value(
            json!({"containers": [{"name": "c", "resources": full}], "initContainers": [{"name": "i"}]}),
        )
        .unwrap();
        assert_eq!(super::class(&spec), "Burstable");
    }
}
