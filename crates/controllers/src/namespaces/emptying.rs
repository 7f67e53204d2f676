//! Namespaces that go: several are emptied side by side, so that none waits for another, and new ones wait for none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};

use crate::workloads::is;

/// The finalizer that this controller removes.
const FINALIZER: &str = "kubernetes";
/// How often a namespace that empties is looked at.
const AGAIN: Duration = Duration::from_millis(500);
/// How many are emptied at a time: as many workers as Kubernetes' controller has.
const AT_ONCE: usize = 10;

/// When a namespace is to be looked at again; nothing once it is let go.
type Emptied = Result<Option<Duration>, kube::Error>;

/// The namespaces being emptied, and those that wait for their turn.
pub(super) struct Emptying {
    client: Client,
    running: FuturesUnordered<BoxFuture<'static, (String, Emptied)>>,
    names: BTreeSet<String>,
    waiting: BTreeMap<String, Namespace>,
}

impl Emptying {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            running: FuturesUnordered::new(),
            names: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes a namespace that is being deleted. One that is at work is looked at once more afterwards.
    pub(super) fn add(&mut self, namespace: Namespace) {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        self.waiting.insert(name, namespace);
        self.fill();
    }

    /// The next that was gone through; pends for ever while there is none. Loses nothing when dropped.
    pub(super) async fn next(&mut self) -> (String, Emptied) {
        let Some((name, emptied)) = self.running.next().await else {
            return std::future::pending().await;
        };
        self.names.remove(&name);
        self.fill();
        (name, emptied)
    }

    fn fill(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some(name) = self.waiting.keys().find(|name| !self.names.contains(*name)) else {
                return;
            };
            let name = name.clone();
            let Some(namespace) = self.waiting.remove(&name) else {
                return;
            };
            self.names.insert(name.clone());
            let client = self.client.clone();
            self.running.push(Box::pin(async move {
                let emptied = empty(&client, namespace, &name).await;
                (name, emptied)
            }));
        }
    }
}

/// Deletes what a namespace holds; when nothing is left, lets it go.
async fn empty(client: &Client, mut namespace: Namespace, name: &str) -> Emptied {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.clone())
        .unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    if delete_content(client, name).await? > 0 {
        return Ok(Some(AGAIN));
    }
    if let Some(spec) = &mut namespace.spec {
        spec.finalizers = Some(
            finalizers
                .into_iter()
                .filter(|finalizer| finalizer != FINALIZER)
                .collect(),
        );
    }
    let api: Api<Namespace> = Api::all(client.clone());
    let written = api
        .replace_subresource::<Namespace>("finalize", name, &PostParams::default(), &namespace)
        .await;
    match written {
        Ok(_) => Ok(None),
        Err(error) if is(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks for the end of everything in a namespace; how much there was.
async fn delete_content(client: &Client, namespace: &str) -> Result<usize, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut left = 0;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let emptied = capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE);
            // Events are one store under two names.
            if !emptied || (resource.plural == "events" && !resource.group.is_empty()) {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), namespace, &resource);
            let held = api.list(&ListParams::default()).await?;
            left += held.items.len();
            for object in held
                .items
                .iter()
                .filter(|object| object.metadata.deletion_timestamp.is_none())
            {
                let object = object.metadata.name.as_deref().unwrap_or_default();
                match api.delete(object, &DeleteParams::background()).await {
                    Ok(_) => {}
                    Err(error) if is(&error, 404) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(left)
}
