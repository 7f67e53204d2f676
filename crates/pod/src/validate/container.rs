//! Containers and init containers of a pod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use super::{FieldError, dns_label, word};

/// Checks all containers; `volumes` are the names that mounts may use.
pub(super) fn all(
    spec: &PodSpec,
    path: &str,
    own: bool,
    volumes: &BTreeSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    let mut names = BTreeSet::new();
    if spec.containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    for (index, container) in spec.containers.iter().enumerate() {
        one(
            container,
            &format!("{path}.containers[{index}]"),
            own,
            volumes,
            &mut names,
            errors,
        );
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = format!("{path}.initContainers[{index}]");
        one(container, &path, own, volumes, &mut names, errors);
        if let Some(policy) = container
            .restart_policy
            .as_deref()
            .filter(|policy| *policy != "Always")
        {
            errors.push(FieldError::not_supported(
                format!("{path}.restartPolicy"),
                policy,
                &["Always"],
            ));
        }
    }
}

fn one<'a>(
    container: &'a Container,
    path: &str,
    own: bool,
    volumes: &BTreeSet<&str>,
    names: &mut BTreeSet<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    let name_field = format!("{path}.name");
    if container.name.is_empty() {
        errors.push(FieldError::required(name_field, ""));
    } else if let Some(why) = dns_label(&container.name) {
        errors.push(FieldError::invalid(name_field, &container.name, &why));
    } else if !names.insert(&container.name) {
        errors.push(FieldError::duplicate(name_field, &container.name));
    }
    let image = container.image.as_deref().unwrap_or_default();
    let image_field = format!("{path}.image");
    if image.is_empty() {
        errors.push(FieldError::required(image_field, ""));
    } else if own && image.trim() != image {
        errors.push(FieldError::invalid(
            image_field,
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    word(
        errors,
        path,
        "imagePullPolicy",
        container.image_pull_policy.as_deref(),
        &policies,
    );
    let message = ["FallbackToLogsOnError", "File"];
    word(
        errors,
        path,
        "terminationMessagePolicy",
        container.termination_message_policy.as_deref(),
        &message,
    );
    ports(container, path, errors);
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let field = format!("{path}.env[{index}]");
        if variable.name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        }
        let has_value = variable
            .value
            .as_deref()
            .is_some_and(|value| !value.is_empty());
        if has_value && variable.value_from.is_some() {
            errors.push(FieldError::invalid(
                format!("{field}.valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            ));
        }
    }
    mounts(container, path, volumes, errors);
}

fn ports(container: &Container, path: &str, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(name) = port
            .name
            .as_deref()
            .filter(|name| !name.is_empty() && !names.insert(*name))
        {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        number(port, &path, errors);
        word(
            errors,
            &path,
            "protocol",
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
    }
}

fn number(port: &ContainerPort, path: &str, errors: &mut Vec<FieldError>) {
    const RANGE: &str = "must be between 1 and 65535, inclusive";
    let good = |number: i32| (1..=65535).contains(&number);
    if port.container_port == 0 {
        errors.push(FieldError::required(format!("{path}.containerPort"), ""));
    } else if !good(port.container_port) {
        let field = format!("{path}.containerPort");
        errors.push(FieldError::invalid_number(
            field,
            port.container_port.into(),
            RANGE,
        ));
    }
    if let Some(host) = port.host_port.filter(|host| *host != 0 && !good(*host)) {
        errors.push(FieldError::invalid_number(
            format!("{path}.hostPort"),
            host.into(),
            RANGE,
        ));
    }
}

fn mounts(
    container: &Container,
    path: &str,
    volumes: &BTreeSet<&str>,
    errors: &mut Vec<FieldError>,
) {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if mount.name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(FieldError::not_found(format!("{path}.name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !paths.insert(mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(
                format!("{path}.mountPath"),
                &mount.mount_path,
                "must be unique",
            ));
        }
        if let Some(sub) = mount.sub_path.as_deref() {
            if sub.starts_with('/') {
                errors.push(FieldError::invalid(
                    format!("{path}.subPath"),
                    sub,
                    "must be a relative path",
                ));
            } else if sub.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(
                    format!("{path}.subPath"),
                    sub,
                    "must not contain '..'",
                ));
            }
        }
    }
}
