//! Validation with Kubernetes' texts.
use k8s_openapi::api::core::v1::Pod;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field: `spec.containers[0].name`.
    pub field: String,
    /// What is wrong, with the kind of error in front: `Required value`, `Invalid value: "x": ...`.
    pub message: String,
}

/// What is wrong with a pod that is created.
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    let _ = pod;
    Vec::new()
}

/// What is wrong with an update of a pod.
pub fn pod_update(old: &Pod, new: &Pod) -> Vec<FieldError> {
    let _ = (old, new);
    Vec::new()
}
