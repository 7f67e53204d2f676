//! Defaults of the kinds that something acts on.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::kinds::Kind;

fn typed<T: Serialize + DeserializeOwned>(
    object: &mut Value,
    fill: impl FnOnce(&mut T),
) -> ApiResult<()> {
    let wrong = |error: serde_json::Error| {
        ApiError::bad_request(format!("the object does not fit its type: {error}"))
    };
    let mut value: T = serde_json::from_value(object.take()).map_err(wrong)?;
    fill(&mut value);
    *object = serde_json::to_value(value).map_err(wrong)?;
    Ok(())
}

fn set(object: &mut Value, field: &str, default: Value) {
    if object.get(field).is_none_or(Value::is_null) {
        object[field] = default;
    }
}

/// Fills in what a new or changed object leaves out.
pub(super) fn fill(kind: &Kind, object: &mut Value) -> ApiResult<()> {
    match (kind.group, kind.plural) {
        ("", "pods") => typed::<Pod>(object, towline_pod::defaults::pod),
        ("apps", "deployments") => typed::<Deployment>(object, towline_pod::defaults::deployment),
        ("apps", "replicasets") => typed::<ReplicaSet>(object, |set| {
            towline_pod::defaults::replica_set(set);
        }),
        ("", "services") => {
            service(object);
            Ok(())
        }
        ("", "secrets") => {
            set(object, "type", json!("Opaque"));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// No service proxy runs here, so a service gets no address of its own: it is headless.
fn service(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    if spec["type"] != "ExternalName" {
        set(spec, "clusterIP", json!("None"));
        let address = spec["clusterIP"].clone();
        set(spec, "clusterIPs", json!([address]));
        set(spec, "internalTrafficPolicy", json!("Cluster"));
        set(spec, "ipFamilies", json!(["IPv4"]));
        set(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
    set(object, "status", json!({"loadBalancer": {}}));
}
