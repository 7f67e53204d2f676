//! The loop of Deployments and replica sets: what changed is looked at again, one object at a time.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use towline_sys::task::CancellationToken;

use crate::cache::{Cache, Key, key};
use crate::event::Recorder;
use crate::retry::Retry;
use crate::{deployment, owner, replicaset};

/// Changes that come close together are looked at once.
const SETTLE: Duration = Duration::from_millis(10);
const DEPLOYMENTS: Recorder = Recorder {
    component: "deployment-controller",
};
const SETS: Recorder = Recorder {
    component: "replicaset-controller",
};

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Deployment(Key),
    Set(Key),
}

struct State {
    client: Client,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    dirty: BTreeSet<Work>,
    retry: Retry<Work>,
    /// Tells the garbage collector that there may be something for it.
    litter: Arc<Notify>,
}

/// Runs until told to stop.
pub(crate) async fn run(client: Client, litter: Arc<Notify>, stop: CancellationToken) {
    let config = watcher::Config::default;
    let mut deployments =
        pin!(watcher(Api::<Deployment>::all(client.clone()), config()).default_backoff());
    let mut sets =
        pin!(watcher(Api::<ReplicaSet>::all(client.clone()), config()).default_backoff());
    let mut pods = pin!(watcher(Api::<Pod>::all(client.clone()), config()).default_backoff());
    let mut state = State {
        client,
        deployments: Cache::default(),
        sets: Cache::default(),
        pods: Cache::default(),
        dirty: BTreeSet::new(),
        retry: Retry::default(),
        litter,
    };
    let mut settled: Option<Instant> = None;
    loop {
        let due = [settled, state.retry.next()].into_iter().flatten().min();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Some(event) = deployments.next() => state.take(event, State::deployment_changed),
            Some(event) = sets.next() => state.take(event, State::set_changed),
            Some(event) = pods.next() => state.take(event, State::pod_changed),
            () = wait => {
                settled = None;
                let due = state.retry.take(Instant::now());
                state.dirty.extend(due);
                state.reconcile().await;
            }
        }
        if settled.is_none() && !state.dirty.is_empty() && state.synced() {
            settled = Some(Instant::now() + SETTLE);
        }
    }
}

impl State {
    fn take<K>(
        &mut self,
        event: Result<Event<K>, watcher::Error>,
        changed: impl FnOnce(&mut Self, Event<K>),
    ) {
        match event {
            Ok(event) => changed(self, event),
            Err(error) => tracing::warn!(%error, "cannot watch {}", std::any::type_name::<K>()),
        }
    }

    fn synced(&self) -> bool {
        self.deployments.synced() && self.sets.synced() && self.pods.synced()
    }

    fn deployment_changed(&mut self, event: Event<Deployment>) {
        self.watch_for_litter(&event);
        if let Some(object) = subject(&event) {
            self.dirty.insert(Work::Deployment(key(object)));
        }
        let whole = matches!(event, Event::InitDone);
        self.deployments.apply(event);
        if whole {
            self.dirty
                .extend(self.deployments.keys().into_iter().map(Work::Deployment));
        }
    }

    fn set_changed(&mut self, event: Event<ReplicaSet>) {
        self.watch_for_litter(&event);
        if let Some(object) = subject(&event) {
            self.dirty.insert(Work::Set(key(object)));
            if let Some(owner) = owner_key(&object.metadata, "Deployment") {
                self.dirty.insert(Work::Deployment(owner));
            }
        }
        let whole = matches!(event, Event::InitDone);
        self.sets.apply(event);
        if whole {
            self.dirty
                .extend(self.sets.keys().into_iter().map(Work::Set));
        }
    }

    fn pod_changed(&mut self, event: Event<Pod>) {
        if let Some(pod) = subject(&event) {
            if let Some(owner) = owner_key(&pod.metadata, "ReplicaSet") {
                // A Deployment that is recreated waits for the last pod to be gone.
                let above = self
                    .sets
                    .get(&owner)
                    .and_then(|set| owner_key(&set.metadata, "Deployment"));
                self.dirty.extend(above.map(Work::Deployment));
                self.dirty.insert(Work::Set(owner));
            } else if owner::controller(&pod.metadata).is_none() {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let labels = pod.metadata.labels.as_ref();
                let selecting = self.sets.in_namespace(namespace).filter(|set| {
                    set.spec
                        .as_ref()
                        .is_some_and(|spec| owner::selects(&spec.selector, labels))
                });
                self.dirty
                    .extend(selecting.map(|set| Work::Set(key(set))).collect::<Vec<_>>());
            }
        }
        self.pods.apply(event);
    }

    fn watch_for_litter<K: Metadata<Ty = ObjectMeta>>(&self, event: &Event<K>) {
        let held = |object: &K| {
            let metadata = object.metadata();
            metadata.deletion_timestamp.is_some()
                && metadata
                    .finalizers
                    .as_ref()
                    .is_some_and(|held| !held.is_empty())
        };
        match event {
            Event::Delete(_) => self.litter.notify_one(),
            Event::Apply(object) if held(object) => self.litter.notify_one(),
            _ => {}
        }
    }

    async fn reconcile(&mut self) {
        if !self.synced() {
            return;
        }
        for work in std::mem::take(&mut self.dirty) {
            let result = match &work {
                Work::Deployment(key) => self.deployment(key).await,
                Work::Set(key) => self.set(key).await,
            };
            match result {
                Ok(again) => self.retry.succeeded(&work, again, Instant::now()),
                Err(error) => {
                    if !is(&error, 409) && !is(&error, 404) {
                        tracing::warn!(?work, %error, "cannot reconcile");
                    }
                    self.retry.failed(&work, Instant::now());
                }
            }
        }
    }

    async fn set(&mut self, at: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(set) = self.sets.get(at).cloned() else {
            return Ok(None);
        };
        let plan = self.plan_set(&set);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &at.0);
        for name in &plan.adopt {
            let mut owners = self.owners_of(&at.0, name);
            owners.push(owner::reference("apps/v1", "ReplicaSet", &set.metadata));
            self.write_owners(&pods, name, owners).await?;
        }
        for name in &plan.release {
            let mut owners = self.owners_of(&at.0, name);
            owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
            self.write_owners(&pods, name, owners).await?;
        }
        let made = self.create_pods(&set, &pods, plan.create).await;
        for name in &plan.delete {
            self.delete_pod(&set, &pods, name).await?;
        }
        let plan = self.plan_set(&set);
        if set.metadata.deletion_timestamp.is_none() && set.status.as_ref() != Some(&plan.status) {
            let mut next = set;
            next.status = Some(plan.status);
            let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &at.0);
            let written = sets
                .replace_status(&at.1, &PostParams::default(), &next)
                .await?;
            self.sets.put(written);
        }
        made.map(|()| plan.again)
    }

    fn plan_set(&self, set: &ReplicaSet) -> replicaset::Plan {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let pods: Vec<&Pod> = self.pods.in_namespace(namespace).collect();
        replicaset::plan(set, &pods, Timestamp::now())
    }

    fn owners_of(
        &self,
        namespace: &str,
        name: &str,
    ) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
        let pod = self.pods.get(&(namespace.to_owned(), name.to_owned()));
        pod.and_then(|pod| pod.metadata.owner_references.clone())
            .unwrap_or_default()
    }

    async fn write_owners(
        &mut self,
        pods: &Api<Pod>,
        name: &str,
        owners: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    ) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"ownerReferences": owners}});
        let pod = pods
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        self.pods.put(pod);
        Ok(())
    }

    async fn create_pods(
        &mut self,
        set: &ReplicaSet,
        pods: &Api<Pod>,
        count: usize,
    ) -> Result<(), kube::Error> {
        let pod = replicaset::new_pod(set);
        for _ in 0..count {
            match pods.create(&PostParams::default(), &pod).await {
                Ok(created) => {
                    let message = format!(
                        "Created pod: {}",
                        created.metadata.name.as_deref().unwrap_or_default()
                    );
                    self.pods.put(created);
                    SETS.record::<ReplicaSet>(
                        &self.client,
                        &set.metadata,
                        ("Normal", "SuccessfulCreate"),
                        message,
                    )
                    .await;
                }
                Err(error) => {
                    // The sentence alone, as Kubernetes' controller writes it, without the document around it.
                    let why = match &error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    let message = format!("Error creating: {why}");
                    SETS.record::<ReplicaSet>(
                        &self.client,
                        &set.metadata,
                        ("Warning", "FailedCreate"),
                        message,
                    )
                    .await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn delete_pod(
        &mut self,
        set: &ReplicaSet,
        pods: &Api<Pod>,
        name: &str,
    ) -> Result<(), kube::Error> {
        let at = (
            set.metadata.namespace.clone().unwrap_or_default(),
            name.to_owned(),
        );
        match pods.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is(&error, 404) => {}
            Err(error) => return Err(error),
        }
        // The watch will show it; until then it must not be counted.
        if let Some(pod) = self.pods.get_mut(&at) {
            pod.metadata
                .deletion_timestamp
                .get_or_insert_with(|| Time(Timestamp::now()));
        }
        let message = format!("Deleted pod: {name}");
        SETS.record::<ReplicaSet>(
            &self.client,
            &set.metadata,
            ("Normal", "SuccessfulDelete"),
            message,
        )
        .await;
        Ok(())
    }

    async fn deployment(&mut self, at: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(found) = self.deployments.get(at).cloned() else {
            return Ok(None);
        };
        let plan = self.plan_deployment(&found);
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &at.0);
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &at.0);
        let mut status = plan.status;
        if let Some(new) = &plan.create
            && let Err(error) = self.create_set(&found, &sets, new).await
        {
            if !is(&error, 409) {
                return Err(error);
            }
            // Another ReplicaSet has the name: the next hash will differ.
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        }
        for update in &plan.update {
            self.update_set(&found, &sets, update).await?;
        }
        for name in &plan.delete {
            let uid = self
                .sets
                .get(&(at.0.clone(), name.clone()))
                .and_then(|set| set.metadata.uid.clone());
            let preconditions = Some(Preconditions {
                uid,
                resource_version: None,
            });
            let parameters = DeleteParams {
                preconditions,
                ..DeleteParams::background()
            };
            sets.delete(name, &parameters).await?;
        }
        let mut latest = found.clone();
        if let Some(revision) = &plan.revision {
            let patch = json!({"metadata": {"annotations": {deployment::REVISION: revision}}});
            latest = api
                .patch(&at.1, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            self.deployments.put(latest.clone());
        }
        if found.metadata.deletion_timestamp.is_none() && found.status.as_ref() != Some(&status) {
            latest.status = Some(status);
            let written = api
                .replace_status(&at.1, &PostParams::default(), &latest)
                .await?;
            self.deployments.put(written);
        }
        Ok(plan.again)
    }

    fn plan_deployment(&self, found: &Deployment) -> deployment::Plan {
        let namespace = found.metadata.namespace.as_deref().unwrap_or_default();
        let sets: Vec<&ReplicaSet> = self.sets.in_namespace(namespace).collect();
        let runs = |uid: &str| {
            let over = |pod: &Pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed"))
            };
            self.pods
                .in_namespace(namespace)
                .any(|pod| owner::is_controlled_by(&pod.metadata, uid) && !over(pod))
        };
        deployment::plan(found, &sets, runs, Timestamp::now())
    }

    async fn create_set(
        &mut self,
        of: &Deployment,
        sets: &Api<ReplicaSet>,
        new: &ReplicaSet,
    ) -> Result<(), kube::Error> {
        let created = sets.create(&PostParams::default(), new).await?;
        let size = created
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(0);
        let name = created.metadata.name.clone().unwrap_or_default();
        self.sets.put(created);
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            DEPLOYMENTS
                .record::<Deployment>(
                    &self.client,
                    &of.metadata,
                    ("Normal", "ScalingReplicaSet"),
                    message,
                )
                .await;
        }
        Ok(())
    }

    async fn update_set(
        &mut self,
        of: &Deployment,
        sets: &Api<ReplicaSet>,
        update: &deployment::Update,
    ) -> Result<(), kube::Error> {
        let mut patch = json!({"metadata": {"annotations": update.annotations}});
        if let Some((_, to)) = update.scale {
            patch["spec"] = json!({"replicas": to});
        }
        let written = sets
            .patch(&update.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        self.sets.put(written);
        if let Some((from, to)) = update.scale {
            let direction = if to > from { "up" } else { "down" };
            let message = format!(
                "Scaled {direction} replica set {} from {from} to {to}",
                update.name
            );
            DEPLOYMENTS
                .record::<Deployment>(
                    &self.client,
                    &of.metadata,
                    ("Normal", "ScalingReplicaSet"),
                    message,
                )
                .await;
        }
        Ok(())
    }
}

/// The object that an event is about, when one alone changed.
fn subject<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(object),
        Event::Init | Event::InitApply(_) | Event::InitDone => None,
    }
}

fn owner_key(metadata: &ObjectMeta, kind: &str) -> Option<Key> {
    let owner = owner::controller(metadata).filter(|owner| owner.kind == kind)?;
    Some((
        metadata.namespace.clone().unwrap_or_default(),
        owner.name.clone(),
    ))
}

/// Whether the API answered with this status.
pub(crate) fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
