//! What a diagnosis is about.

use serde::{Deserialize, Serialize};

/// The object, container and image that a diagnosis speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `Pod`, `Image`, or the kind of a workload whose template was explained because it has no pods.
    pub kind: String,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod, or the image reference.
    pub name: String,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Whether that is an init container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// The image, as written.
    pub image: String,
    /// The node that the pod is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What made the pod, where something did: there the change belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// The workload whose template made a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `ReplicaSet`, `StatefulSet`, `DaemonSet` or `Job`.
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

impl Target {
    /// An image that no pod names.
    pub fn image(image: &str) -> Self {
        Self {
            kind: "Image".to_owned(),
            namespace: None,
            name: image.to_owned(),
            container: None,
            init: false,
            image: image.to_owned(),
            node: None,
            owner: None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.to_lowercase(), self.name)?,
            // A text that was pasted may name a pod and not its namespace.
            None if self.kind == "Pod" => write!(f, "pod {}", self.name)?,
            None => return write!(f, "image {}", self.image),
        }
        match &self.container {
            Some(container) if self.init => write!(f, ", init container {container}"),
            Some(container) => write!(f, ", container {container}"),
            None => Ok(()),
        }
    }
}
