//! `kubectl describe pod`.

use super::seen::{Container, Pod};
use crate::Owner;

/// A description that is being read, line by line.
#[derive(Debug, Default)]
pub(super) struct Describe {
    pod: Pod,
    /// The block at the margin that a line stands in: `Containers`, `Labels`, ...
    block: String,
    hash: Option<String>,
    controller: Option<(String, String)>,
    annotation: String,
}

/// Whether a line begins a description: `Name:` at the margin.
pub(super) fn begins(line: &str) -> bool {
    line.strip_prefix("Name:")
        .is_some_and(|rest| rest.starts_with([' ', '\t']) && super::table::is_name(rest.trim()))
}

/// `Key:   value`, as these descriptions have it.
fn field(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let key = key.trim();
    let sound = !key.is_empty() && key.len() < 64 && !key.contains(['"', '(']);
    (sound && (value.is_empty() || value.starts_with([' ', '\t']))).then_some((key, value.trim()))
}

impl Describe {
    /// Takes a line; false when it is not one of a description's fields.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let indent = line.len() - line.trim_start().len();
        let found = field(line);
        if indent == 0 {
            let Some((key, value)) = found else {
                return false;
            };
            key.clone_into(&mut self.block);
            self.margin(key, value);
            return true;
        }
        match self.block.as_str() {
            "Labels" => self.label(line.trim()),
            "Annotations" => self.annotate(line.trim()),
            "Containers" | "Init Containers" | "Ephemeral Containers" => {
                self.container(indent, line.trim(), found);
            }
            _ => {}
        }
        true
    }

    fn margin(&mut self, key: &str, value: &str) {
        let some = || Some(value.to_owned()).filter(|value| !value.is_empty() && value != "<none>");
        match key {
            "Name" => value.clone_into(&mut self.pod.name),
            "Namespace" => self.pod.namespace = some(),
            "Service Account" => self.pod.service_account = some(),
            "Node" => {
                self.pod.node =
                    some().map(|node| node.split('/').next().unwrap_or_default().to_owned());
            }
            "Labels" => self.label(value),
            "Annotations" => self.annotate(value),
            "Controlled By" => {
                self.controller = value
                    .split_once('/')
                    .map(|(kind, name)| (kind.to_owned(), name.to_owned()));
            }
            _ => {}
        }
    }

    fn label(&mut self, label: &str) {
        if let Some(hash) = label.strip_prefix("pod-template-hash=") {
            self.hash = Some(hash.to_owned());
        }
    }

    fn annotate(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix(towline_pod::pulls::ANNOTATION) {
            rest.trim_start_matches([':', '=', ' '])
                .clone_into(&mut self.annotation);
        }
    }

    fn container(&mut self, indent: usize, text: &str, found: Option<(&str, &str)>) {
        let Some((key, value)) = found else { return };
        if indent <= 2 && value.is_empty() && text.ends_with(':') {
            self.pod.containers.push(Container {
                name: key.to_owned(),
                init: self.block == "Init Containers",
                ..Container::default()
            });
            return;
        }
        let Some(container) = self.pod.containers.last_mut() else {
            return;
        };
        match key {
            "Image" => value.clone_into(&mut container.image),
            "State" | "Last State" => {
                container.started |= matches!(value, "Running" | "Terminated");
            }
            "Reason" if !container.started => {
                container.reason.get_or_insert_with(|| value.to_owned());
            }
            "Message" if !container.started => {
                container.message.get_or_insert_with(|| value.to_owned());
            }
            _ => {}
        }
    }

    /// The pod that was described.
    pub(super) fn pod(mut self) -> Pod {
        self.pod.owner = self
            .controller
            .map(|(kind, name)| owner(&kind, &name, self.hash.as_deref()));
        if let Ok(pulls) = towline_pod::pulls::Pulls::parse(&self.annotation) {
            self.pod.pulls = pulls.containers;
        }
        self.pod.runs =
            !self.pod.containers.is_empty() && self.pod.containers.iter().all(Container::has_image);
        self.pod
    }
}

/// What made a pod. A `ReplicaSet` named after the pod's template hash belongs to a Deployment.
pub(super) fn owner(kind: &str, name: &str, hash: Option<&str>) -> Owner {
    let deployment = hash
        .filter(|_| kind == "ReplicaSet")
        .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    match deployment {
        Some(deployment) => Owner {
            kind: "Deployment".to_owned(),
            name: deployment.to_owned(),
        },
        None => Owner {
            kind: kind.to_owned(),
            name: name.to_owned(),
        },
    }
}
