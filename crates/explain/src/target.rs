//! What a diagnosis is about.

use serde::{Deserialize, Serialize};

/// The object, container and image that a diagnosis speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `Pod` or `Image`.
    pub kind: String,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod, or the image reference.
    pub name: String,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
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
            image: image.to_owned(),
            node: None,
            owner: None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.namespace, &self.container) {
            (Some(namespace), Some(container)) => {
                write!(f, "pod {namespace}/{}, container {container}", self.name)
            }
            (Some(namespace), None) => write!(f, "pod {namespace}/{}", self.name),
            _ => write!(f, "image {}", self.image),
        }
    }
}
