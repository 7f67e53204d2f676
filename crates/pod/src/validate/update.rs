//! What an update of a pod may change.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::FieldError;

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with an update: what [`super::pod`] says of the new pod, and any change beyond images, a shorter active
/// deadline and more tolerations.
pub fn pod_update(old: &Pod, new: &Pod) -> Vec<FieldError> {
    let mut errors = super::pod(new);
    let empty = PodSpec::default();
    let old_spec = old.spec.as_ref().unwrap_or(&empty);
    let new_spec = new.spec.as_ref().unwrap_or(&empty);
    if old_spec.containers.len() != new_spec.containers.len() {
        errors.push(FieldError::forbidden(
            "spec.containers",
            "pod updates may not add or remove containers",
        ));
        return errors;
    }
    if old_spec.init_containers.as_ref().map_or(0, Vec::len)
        != new_spec.init_containers.as_ref().map_or(0, Vec::len)
    {
        errors.push(FieldError::forbidden(
            "spec.initContainers",
            "pod updates may not add or remove containers",
        ));
        return errors;
    }
    deadline(old_spec, new_spec, &mut errors);
    let added = tolerations(old_spec, new_spec);
    if !added {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", why));
    }
    if neutral(old_spec, old_spec) != neutral(new_spec, old_spec) {
        errors.push(FieldError::forbidden("spec", RULE));
    }
    errors
}

/// The spec with everything that may change put back to what the old one has.
fn neutral(spec: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = spec.clone();
    for (container, before) in spec.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&before.image);
    }
    let before = old.init_containers.iter().flatten();
    for (container, before) in spec.init_containers.iter_mut().flatten().zip(before) {
        container.image.clone_from(&before.image);
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    if old
        .termination_grace_period_seconds
        .is_some_and(|grace| grace < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    // Binding sets the node once.
    if old.node_name.as_deref().unwrap_or_default().is_empty() {
        spec.node_name.clone_from(&old.node_name);
    }
    spec
}

fn deadline(old: &PodSpec, new: &PodSpec, errors: &mut Vec<FieldError>) {
    let field = "spec.activeDeadlineSeconds";
    match (old.active_deadline_seconds, new.active_deadline_seconds) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid_number(field, after, why));
        }
        (Some(_), None) => {
            errors.push(FieldError {
                field: field.to_owned(),
                kind: "FieldValueInvalid",
                message:
                    "Invalid value: null: must not update from a positive integer to nil value"
                        .to_owned(),
            });
        }
        _ => {}
    }
}

/// Every old toleration is still there, but for its seconds.
fn tolerations(old: &PodSpec, new: &PodSpec) -> bool {
    let new = new.tolerations.as_deref().unwrap_or_default();
    old.tolerations.iter().flatten().all(|before| {
        new.iter().any(|after| {
            let mut after = after.clone();
            after.toleration_seconds = before.toleration_seconds;
            after == *before
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_is_allowed_changes() {
        let base = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "image": "i:1"}], "initContainers": [{"name": "b", "image": "i:1"}],
                "activeDeadlineSeconds": 100, "tolerations": [{"key": "k", "operator": "Exists"}]}});
        let forbidden = format!("spec: Forbidden: {RULE}");
        let change = |at: &str, value: Value| {
            let mut changed = base.clone();
            *changed.pointer_mut(at).unwrap() = value;
            changed
        };
        let read = |value: Value| {
            let mut pod: Pod = serde_json::from_value(value).unwrap();
            crate::defaults::pod(&mut pod);
            pod
        };
        let policy = json!([{"name": "a", "image": "i:1", "imagePullPolicy": "Never"}]);
        let more = json!([{"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists"}]);
        for (new, expected) in [
            (base.clone(), None),
            (change("/spec/containers/0/image", json!("i:2")), None),
            (change("/spec/initContainers/0/image", json!("i:2")), None),
            (change("/spec/activeDeadlineSeconds", json!(50)), None),
            (change("/spec/tolerations", more), None),
            (change("/metadata/name", json!("p")), None),
            (
                change("/spec/containers/0/name", json!("z")),
                Some(forbidden.as_str()),
            ),
            (change("/spec/containers", policy), Some(&forbidden)),
            (
                change("/spec/activeDeadlineSeconds", json!(500)),
                Some(
                    "spec.activeDeadlineSeconds: Invalid value: 500: must be less than or equal to previous value",
                ),
            ),
            (
                change("/spec/tolerations", json!([])),
                Some(
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ),
            ),
            (
                change(
                    "/spec/containers",
                    json!([{"name": "a", "image": "i"}, {"name": "c", "image": "i"}]),
                ),
                Some("spec.containers: Forbidden: pod updates may not add or remove containers"),
            ),
        ] {
            let errors: Vec<String> = pod_update(&read(base.clone()), &read(new.clone()))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(errors, expected.into_iter().collect::<Vec<_>>(), "{new}");
        }
    }
}
