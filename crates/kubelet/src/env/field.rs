//! Values that a container or a volume takes from the pod itself.

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use towline_pod::quantity;

use crate::view;

/// What the pod does not hold but the node knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) host_ip: String,
    pub(crate) pod_ips: Vec<String>,
    /// Thousandths of CPUs.
    pub(crate) cpu_milli: i128,
    /// Thousandths of bytes.
    pub(crate) memory_milli: i128,
}

/// The value of a `fieldRef`.
pub(crate) fn field(
    pod: &Pod,
    facts: &NodeFacts,
    selector: &ObjectFieldSelector,
) -> Result<String, String> {
    let path = selector.field_path.as_str();
    if let Some((field, key)) = subscript(path) {
        let map = match field {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map
            .as_ref()
            .and_then(|m| m.get(key).cloned())
            .unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => view::name(pod).to_owned(),
        "metadata.namespace" => view::namespace(pod).to_owned(),
        "metadata.uid" => view::uid(pod).to_owned(),
        "metadata.labels" => map_lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map_lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.name.clone(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted, values in Go's quoting.
fn map_lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(key, value)| format!("{key}={}", towline_pod::text::quote(value)))
        .collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef` of a container.
pub(crate) fn resource(
    container: &Container,
    facts: &NodeFacts,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let resources = container.resources.as_ref();
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let given = match list {
        "limits" => quantity::of(resources.and_then(|r| r.limits.as_ref()), name),
        "requests" => quantity::of(resources.and_then(|r| r.requests.as_ref()), name),
        _ => None,
    };
    let milli = match (given, list, name) {
        (Some(given), _, _) => given,
        (None, "limits", "cpu") => facts.cpu_milli,
        (None, "limits", "memory") => facts.memory_milli,
        (None, "limits" | "requests", _) => 0,
        _ => {
            return Err(format!(
                "unsupported container resource : {}",
                selector.resource
            ));
        }
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|divisor| quantity::milli(&divisor.0))
        .filter(|divisor| *divisor > 0)
        .unwrap_or(1000);
    let value = milli.div_euclid(divisor) + i128::from(milli.rem_euclid(divisor) != 0);
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [], "serviceAccountName": "sa"},
        }))
        .unwrap();
        let facts = NodeFacts {
            name: "node1".into(),
            pod_ips: vec!["10.0.0.2".into(), "fd::2".into()],
            ..NodeFacts::default()
        };
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\""),
            ("spec.nodeName", "node1"),
            ("status.podIPs", "10.0.0.2,fd::2"),
        ] {
            let selector = ObjectFieldSelector {
                api_version: None,
                field_path: path.into(),
            };
            assert_eq!(field(&pod, &facts, &selector).unwrap(), value, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "resources": {"limits": {"cpu": "1500m"}},
        }))
        .unwrap();
        let facts = NodeFacts {
            memory_milli: 4096 * 1000,
            ..NodeFacts::default()
        };
        for (name, divisor, value) in [
            ("limits.cpu", "0", "2"),
            ("limits.cpu", "1m", "1500"),
            ("limits.memory", "1Ki", "4"),
            ("requests.cpu", "1", "0"),
        ] {
            let selector =
                serde_json::from_value(serde_json::json!({"resource": name, "divisor": divisor}))
                    .unwrap();
            assert_eq!(
                resource(&container, &facts, &selector).unwrap(),
                value,
                "{name} / {divisor}"
            );
        }
    }
}
