//! What the cluster's API says of a pod: one read of everything that a diagnosis needs.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use towline_oci::Platform;

use super::ExplainError;
use super::container::Container;
use crate::decide::NodeView;
use crate::{Evidence, Owner, Unread};

/// The most secrets of a namespace that are looked at.
const MAX_SECRETS: u32 = 200;

/// A pod and what belongs to it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) pod: Pod,
    pub(super) owner: Option<Owner>,
    pub(super) events: Vec<Event>,
    pub(super) secrets: Vec<(String, Result<Option<Secret>, String>)>,
    pub(super) platform: Option<Platform>,
    pub(super) boot_id: Option<String>,
    pub(super) unread: Vec<Unread>,
}

impl Cluster {
    pub(super) async fn read(
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Self, ExplainError> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let found = pods.get_opt(name).await;
        let found = found.map_err(|source| ExplainError::Api {
            what: format!("pod {namespace}/{name}"),
            source: Box::new(source),
        })?;
        let pod = found.ok_or_else(|| ExplainError::NoPod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })?;
        let mut cluster = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner: None,
            events: Vec::new(),
            secrets: Vec::new(),
            platform: None,
            boot_id: None,
            unread: Vec::new(),
            pod,
        };
        cluster.read_owner(client).await;
        cluster.read_events(client).await;
        cluster.read_secrets(client).await;
        cluster.read_node(client).await;
        Ok(cluster)
    }

    async fn read_owner(&mut self, client: &Client) {
        let Some(owner) = controller(self.pod.owner_references()) else {
            return;
        };
        self.owner = Some(owner.clone());
        if owner.kind != "ReplicaSet" {
            return;
        }
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &self.namespace);
        match sets.get(&owner.name).await {
            Ok(set) => self.owner = controller(set.owner_references()).or(Some(owner)),
            Err(error) => self.note(
                format!("replicaset {}", owner.name),
                &error,
                "the fix may be for the wrong object",
            ),
        }
    }

    async fn read_events(&mut self, client: &Client) {
        let events: Api<Event> = Api::namespaced(client.clone(), &self.namespace);
        let mut fields = format!("involvedObject.name={}", self.name);
        if let Some(uid) = self.pod.uid() {
            fields.push_str(",involvedObject.uid=");
            fields.push_str(&uid);
        }
        match events
            .list(&ListParams::default().fields(&fields).limit(500))
            .await
        {
            Ok(list) => self.events = list.items,
            Err(error) => self.note(
                "events of the pod".to_owned(),
                &error,
                "earlier errors stay unknown",
            ),
        }
    }

    async fn read_secrets(&mut self, client: &Client) {
        let named = self
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let names: Vec<String> = named
            .map(|reference| reference.name.clone())
            .filter(|name| !name.is_empty())
            .collect();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
        for name in names {
            let found = match secrets.get_opt(&name).await {
                Ok(found) => Ok(found),
                Err(error) => {
                    self.note(
                        format!("secret {}/{name}", self.namespace),
                        &error,
                        "whether its login is right stays unknown",
                    );
                    Err(reason(&error))
                }
            };
            self.secrets.push((name, found));
        }
    }

    async fn read_node(&mut self, client: &Client) {
        let Some(name) = self.node_name().map(str::to_owned) else {
            return;
        };
        let nodes: Api<Node> = Api::all(client.clone());
        match nodes.get(&name).await {
            Ok(node) => {
                let info = node.status.and_then(|status| status.node_info);
                self.platform = info
                    .as_ref()
                    .map(|info| Platform::new(&info.operating_system, &info.architecture));
                self.boot_id = info.map(|info| info.boot_id).filter(|id| !id.is_empty());
            }
            Err(error) => self.note(
                format!("node {name}"),
                &error,
                "its platform is taken to be that of this machine",
            ),
        }
    }

    /// Pull secrets of the namespace, at most [`MAX_SECRETS`].
    pub(super) async fn pull_secrets(&self, client: &Client) -> Vec<(String, Secret)> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
        let list = secrets
            .list(&ListParams::default().limit(MAX_SECRETS))
            .await;
        let is_pull = |secret: &Secret| {
            secret
                .type_
                .as_deref()
                .is_some_and(|kind| kind.starts_with("kubernetes.io/dockerc"))
        };
        let found = list
            .map(|list| list.items)
            .unwrap_or_default()
            .into_iter()
            .filter(is_pull);
        found.map(|secret| (secret.name_any(), secret)).collect()
    }

    fn note(&mut self, what: String, error: &kube::Error, cost: &str) {
        self.unread.push(Unread {
            what,
            why: reason(error),
            cost: cost.to_owned(),
        });
    }

    pub(super) fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref()
    }

    pub(super) fn service_account(&self) -> &str {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default")
    }

    /// What the kubelet said of this container.
    pub(super) fn evidence(
        &self,
        container: &Container<'_>,
        node: Option<&NodeView>,
    ) -> Vec<Evidence> {
        let from = self.node_name().map_or_else(
            || "the cluster's API".to_owned(),
            |name| format!("node {name}"),
        );
        let mut lines = Vec::new();
        if let Some(reason) = container.waiting_reason() {
            lines.push(format!("the container waits: {reason}"));
        }
        lines.extend(
            node.filter(|node| !node.text.is_empty())
                .map(|node| without_suffix(&node.text)),
        );
        lines
            .into_iter()
            .map(|fact| Evidence {
                fact,
                seen_from: from.clone(),
                seen_by: "kubelet".into(),
            })
            .collect()
    }
}

/// The words of a message without our runtime's suffix, which repeats what the diagnosis says in fields of its own.
fn without_suffix(text: &str) -> String {
    match text.rfind(" [towline: ") {
        Some(at) if towline_cause::suffix::parse(text).is_some() => text[..at].to_owned(),
        _ => text.to_owned(),
    }
}

fn controller(
    owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
) -> Option<Owner> {
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        other => other.to_string(),
    }
}
