//! Publishes statuses, one writer for all pods, the latest of each.
//!
//! Our own annotation and condition are made where the status is written, so they follow the pulls while the status itself
//! keeps Kubernetes' timing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towline_pod::{conditions, pulls};
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::images::Images;
use crate::images::records::summary;
use crate::view;

const CONFLICTS: u32 = 5;
const RETRY: Duration = Duration::from_secs(1);
const FLUSH: Duration = Duration::from_secs(1);
/// Fields of a pod's status that others write.
const FOREIGN: [&str; 5] = [
    "nominatedNodeName",
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
    "resize",
    "qosClass",
];

/// The statuses of the node's pods.
pub(crate) struct StatusManager {
    client: kube::Client,
    images: Arc<Images>,
    clock: Clock,
    /// Annotation and condition of our own are written.
    extended: bool,
    state: Mutex<State>,
    work: Notify,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    pods: HashMap<String, Entry>,
    /// Pods whose status is to be written, the one that waits longest first: on a busy node there is always another one.
    dirty: VecDeque<String>,
    /// The pod that is being written.
    writing: Option<String>,
}

impl State {
    /// The pod's status is to be written, in its turn.
    fn ask(&mut self, uid: &str) {
        if !self.dirty.iter().any(|waiting| waiting == uid) {
            self.dirty.push_back(uid.to_owned());
        }
    }

    /// The next pod to write; from here on it counts as being written.
    fn take(&mut self) -> Option<String> {
        self.writing = self.dirty.pop_front();
        self.writing.clone()
    }
}

#[derive(Debug, Clone)]
struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// The pod is over: its object is deleted once the status is written.
    delete: bool,
}

impl StatusManager {
    /// A manager that writes nothing until [`run`](Self::run).
    pub(crate) fn new(
        client: kube::Client,
        images: Arc<Images>,
        clock: Clock,
        extended: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            images,
            clock,
            extended,
            state: Mutex::default(),
            work: Notify::new(),
            written: Notify::new(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status made last for a pod, else the one that the API has.
    pub(crate) fn get(&self, pod: &Pod) -> PodStatus {
        let state = self.state();
        let known = state
            .pods
            .get(view::uid(pod))
            .map(|entry| entry.status.clone());
        known.or_else(|| pod.status.clone()).unwrap_or_default()
    }

    /// Takes a new status.
    pub(crate) fn set(&self, pod: &Arc<Pod>, status: PodStatus) {
        let uid = view::uid(pod).to_owned();
        let mut state = self.state();
        let delete = state.pods.get(&uid).is_some_and(|entry| entry.delete);
        let entry = Entry {
            pod: Arc::clone(pod),
            status,
            delete,
        };
        state.ask(&uid);
        state.pods.insert(uid, entry);
        drop(state);
        self.work.notify_one();
    }

    /// What is known of the pod's pulls has changed.
    pub(crate) fn touch(&self, uid: &str) {
        if self.extended {
            self.mark(uid);
        }
    }

    fn mark(&self, uid: &str) {
        let mut state = self.state();
        if state.pods.contains_key(uid) {
            state.ask(uid);
            drop(state);
            self.work.notify_one();
        }
    }

    /// The pod has nothing left here: its object goes.
    pub(crate) fn delete(&self, uid: &str) {
        if let Some(entry) = self.state().pods.get_mut(uid) {
            entry.delete = true;
        }
        self.mark(uid);
    }

    /// Waits until the last status of a pod is written, for a second at most.
    pub(crate) async fn flush(&self, uid: &str) {
        let flushed = async {
            loop {
                let written = self.written.notified();
                let waiting = {
                    let state = self.state();
                    state.dirty.iter().any(|waiting| waiting == uid)
                        || state.writing.as_deref() == Some(uid)
                };
                if !waiting {
                    return;
                }
                written.await;
            }
        };
        // Later is no harm: the next status holds what this one did.
        drop(tokio::time::timeout(FLUSH, flushed).await);
    }

    /// Forgets a pod that is gone from the API.
    pub(crate) fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.pods.remove(uid);
        state.dirty.retain(|waiting| waiting != uid);
    }

    /// Writes until `stop`; what is waiting then is written once more.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let next = self.state().take();
            let Some(uid) = next else {
                tokio::select! {
                    () = self.work.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            let entry = self.state().pods.get(&uid).cloned();
            let Some(entry) = entry else {
                self.state().writing = None;
                continue;
            };
            let wrote = self.write(&entry).await;
            self.state().writing = None;
            self.written.notify_waiters();
            if let Err(error) = wrote {
                warn!(pod = view::full_name(&entry.pod), %error, "status not written, will try again");
                self.state().ask(&uid);
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    async fn write(&self, entry: &Entry) -> Result<(), kube::Error> {
        let uid = view::uid(&entry.pod);
        let name = view::name(&entry.pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), view::namespace(&entry.pod));
        for _ in 0..CONFLICTS {
            let Some(current) = api.get_opt(name).await? else {
                self.forget(uid);
                return Ok(());
            };
            if view::uid(&current) != uid {
                self.forget(uid);
                return Ok(());
            }
            match self.patch(&api, entry, &current).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.forget(uid);
                    return Ok(());
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    if entry.delete {
                        return self.remove(&api, name, uid).await;
                    }
                    return Ok(());
                }
            }
        }
        debug!(
            pod = view::full_name(&entry.pod),
            "status conflicts, will try again"
        );
        self.state().ask(uid);
        Ok(())
    }

    async fn patch(&self, api: &Api<Pod>, entry: &Entry, current: &Pod) -> Result<(), kube::Error> {
        let before = current.status.clone().unwrap_or_default();
        let status = self.merged(entry, current, &before);
        let annotation = self.annotation(entry, current);
        let change = difference(&before, &status);
        if change.as_object().is_some_and(serde_json::Map::is_empty) && annotation.is_none() {
            return Ok(());
        }
        let mut metadata = json!({
            "uid": current.metadata.uid,
            "resourceVersion": current.metadata.resource_version,
        });
        if let Some(value) = &annotation {
            metadata["annotations"] = json!({ pulls::ANNOTATION: value });
        }
        let patch = json!({ "metadata": metadata, "status": change });
        let name = view::name(current);
        let written = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        let taken = written
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(pulls::ANNOTATION));
        if let Some(value) = annotation.as_ref().and_then(Value::as_str)
            && taken.map(String::as_str) != Some(value)
        {
            self.annotate(api, name, value).await;
        }
        Ok(())
    }

    /// For an API server that takes no annotation through the status.
    async fn annotate(&self, api: &Api<Pod>, name: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { pulls::ANNOTATION: value } } });
        let params = PatchParams::default();
        if let Err(error) = api.patch(name, &params, &Patch::Merge(patch)).await {
            debug!(pod = name, %error, "annotation not written");
        }
    }

    /// Our status with what others own kept.
    fn merged(&self, entry: &Entry, current: &Pod, before: &PodStatus) -> PodStatus {
        let mut status = entry.status.clone();
        let mut owned = status.conditions.take().unwrap_or_default();
        owned.extend(self.condition(entry));
        let old = before.conditions.as_deref().unwrap_or_default();
        status.conditions = Some(conditions::merge(owned, old, self.clock.now()));
        if before.start_time.is_some() {
            status.start_time.clone_from(&before.start_time);
        }
        // A final phase is never taken back.
        if super::is_terminal(before) && !super::is_terminal(&status) {
            status.phase.clone_from(&before.phase);
        }
        status.observed_generation = entry
            .pod
            .metadata
            .generation
            .or(current.metadata.generation);
        status
    }

    fn condition(&self, entry: &Entry) -> Option<PodCondition> {
        if !self.extended {
            return None;
        }
        let summary = summary(&self.images.records.pulls(&entry.pod)?)?;
        Some(PodCondition {
            type_: pulls::CONDITION.to_owned(),
            status: if summary.fine { "True" } else { "False" }.to_owned(),
            reason: Some(summary.reason),
            message: (!summary.message.is_empty()).then_some(summary.message),
            observed_generation: entry.pod.metadata.generation,
            ..PodCondition::default()
        })
    }

    /// The annotation's new value where it changes.
    fn annotation(&self, entry: &Entry, current: &Pod) -> Option<Value> {
        if !self.extended {
            return None;
        }
        let value = self.images.records.pulls(&entry.pod)?.render();
        let now = current
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(pulls::ANNOTATION));
        (now != Some(&value)).then_some(Value::String(value))
    }

    async fn remove(&self, api: &Api<Pod>, name: &str, uid: &str) -> Result<(), kube::Error> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        self.forget(uid);
        Ok(())
    }
}

/// The merge patch from one status to the other, by top-level fields.
fn difference(before: &PodStatus, after: &PodStatus) -> Value {
    let (Ok(Value::Object(before)), Ok(Value::Object(after))) =
        (serde_json::to_value(before), serde_json::to_value(after))
    else {
        return json!({});
    };
    let mut change = serde_json::Map::new();
    for (key, value) in &after {
        if before.get(key) != Some(value) {
            change.insert(key.clone(), value.clone());
        }
    }
    for key in before.keys() {
        if !after.contains_key(key) && !FOREIGN.contains(&key.as_str()) {
            change.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_waits_is_not_passed_by_others_that_come_again() {
        let mut state = State::default();
        state.ask("f7");
        for _ in 0..3 {
            state.ask("1c");
            state.ask("f7");
        }
        assert_eq!(state.take().as_deref(), Some("f7"));
        state.ask("f7");
        assert_eq!(state.take().as_deref(), Some("1c"));
        assert_eq!(state.take().as_deref(), Some("f7"));
        assert_eq!((state.take(), state.writing), (None, None));
    }

    #[test]
    fn only_what_changes_is_written() {
        let before = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("x".into()),
            nominated_node_name: Some("n".into()),
            ..PodStatus::default()
        };
        let after = PodStatus {
            phase: Some("Running".into()),
            ..PodStatus::default()
        };
        assert_eq!(
            difference(&before, &after),
            json!({"phase": "Running", "reason": null})
        );
        assert_eq!(difference(&after, &after), json!({}));
    }
}
