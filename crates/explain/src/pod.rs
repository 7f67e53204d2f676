//! A pod explained: what the cluster says of it, put together with the replayed pull.

mod container;
mod desk;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client};

use crate::Diagnosis;
use crate::eye::Eye;
use crate::prober::{Budget, Deep};
pub(crate) use container::image_states;
pub(crate) use desk::Desk;
pub(crate) use view::View;

/// What an explanation works with.
#[derive(Clone)]
pub struct Context {
    /// The cluster's API.
    pub kube: Client,
    /// The client that replays pulls.
    pub registry: towline_distribution::Client,
    /// Where this program runs, for the evidence: `this machine`, or a node's name.
    pub seen_from: String,
    /// Boot id of this machine: a node with the same one is this machine.
    pub boot_id: Option<String>,
    /// How hard registries may be asked.
    pub budget: Budget,
    /// Pulls are replayed on this node too; what that shows decides for its pods.
    pub eye: Option<Arc<Eye>>,
    /// The bytes of images are downloaded and verified too.
    pub deep: Option<Deep>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("seen_from", &self.seen_from)
            .finish_non_exhaustive()
    }
}

/// Why a pod cannot be explained at all.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such object.
    #[error("there is no {kind} {name:?} in namespace {namespace:?}")]
    Missing {
        /// Its kind, in lower case.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// There is no such namespace; or it has no pods, and whether it is there may not be read.
    #[error("there is no namespace {name:?}{}", unread.as_ref().map(|why| format!(" that has pods, and whether there is one without could not be read ({why})")).unwrap_or_default())]
    NoNamespace {
        /// Its name.
        name: String,
        /// Names of namespaces that are like it, nearest first.
        near: Vec<String>,
        /// Why it is not known whether it is there: `403 Forbidden`.
        unread: Option<String>,
    },
    /// The API did not answer.
    #[error("cannot read {what}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Explains every container of a pod whose image is not there, or says that all images are.
pub async fn explain(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Vec<Diagnosis>, ExplainError> {
    let pod = read(&context.kube, namespace, name).await?;
    let desk = Desk::new(context, false);
    let view = Box::pin(View::of_pod(&desk.world, pod, None)).await;
    Ok(Box::pin(desk.explain(&view)).await)
}

/// Reads one pod.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Pod, ExplainError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.get_opt(name).await;
    let found = found.map_err(|source| ExplainError::Api {
        what: format!("pod {namespace}/{name}"),
        source: Box::new(source),
    })?;
    found.ok_or_else(|| ExplainError::Missing {
        kind: "pod".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Whether a pod may have an image that does not pull: it is neither over nor ending, and some image is not there.
pub(crate) fn wants_a_look(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let over = matches!(phase, Some("Succeeded" | "Failed"));
    let ending = pod.metadata.deletion_timestamp.is_some();
    let there = |container: &container::Container<'_>| container.image_is_there();
    !over && !ending && !container::all(pod).iter().all(there)
}

/// The status of a container by name.
fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}
