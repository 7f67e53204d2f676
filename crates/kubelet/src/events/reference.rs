//! What an event is about.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

/// The reference to a pod as a whole.
pub(crate) fn pod(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The reference to one container of a pod: `spec.containers{NAME}`, `spec.initContainers{NAME}` or `spec.ephemeralContainers{NAME}`.
pub(crate) fn container(of: &Pod, name: &str) -> ObjectReference {
    ObjectReference {
        field_path: field_path(of, name),
        ..pod(of)
    }
}

fn field_path(pod: &Pod, name: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.containers.iter().any(|c| c.name == name) {
        return Some(format!("spec.containers{{{name}}}"));
    }
    if spec
        .init_containers
        .iter()
        .flatten()
        .any(|c| c.name == name)
    {
        return Some(format!("spec.initContainers{{{name}}}"));
    }
    spec.ephemeral_containers
        .iter()
        .flatten()
        .any(|c| c.name == name)
        .then(|| format!("spec.ephemeralContainers{{{name}}}"))
}
