//! Volumes of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use serde_json::Value;

use super::{FieldError, dns_label};

/// Checks the volumes and gives their names.
pub(super) fn all<'a>(
    spec: &'a PodSpec,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        if volume.name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if let Some(why) = dns_label(&volume.name) {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                &volume.name,
                &why,
            ));
        } else if !names.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &volume.name));
        }
        sources(volume, &path, errors);
    }
    names
}

/// A volume has one source, and the source what it needs.
fn sources(volume: &Volume, path: &str, errors: &mut Vec<FieldError>) {
    let value = serde_json::to_value(volume).unwrap_or(Value::Null);
    let kinds = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .filter(|key| *key != "name");
    for kind in kinds.skip(1) {
        errors.push(FieldError::forbidden(
            format!("{path}.{kind}"),
            "may not specify more than 1 volume type",
        ));
    }
    if let Some(secret) = &volume.secret
        && secret.secret_name.as_deref().unwrap_or_default().is_empty()
    {
        errors.push(FieldError::required(
            format!("{path}.secret.secretName"),
            "",
        ));
    }
    if let Some(map) = &volume.config_map
        && map.name.is_empty()
    {
        errors.push(FieldError::required(format!("{path}.configMap.name"), ""));
    }
    if let Some(host) = &volume.host_path
        && host.path.is_empty()
    {
        errors.push(FieldError::required(format!("{path}.hostPath.path"), ""));
    }
    if let Some(image) = &volume.image
        && image.reference.as_deref().unwrap_or_default().is_empty()
    {
        errors.push(FieldError::required(format!("{path}.image.reference"), ""));
    }
}
