//! The node's pods: which there are, who works on each, and what wakes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towline_pod::pulls;
use towline_sys::fs::FsError;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::credentials;
use crate::images::records::foreign_annotations;
use crate::objects::{Changed, What};
use crate::sync::kill;
use crate::view::{self, PodView};
use crate::worker::{Told, Wake, Worker};

const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// All workers.
pub(crate) struct Workers {
    agent: Arc<Agent>,
    start: Instant,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, Running>,
    /// No pod is started any more.
    closed: bool,
    /// The first list of pods has arrived.
    listed: bool,
}

#[derive(Debug)]
struct Running {
    told: watch::Sender<Told>,
    wake: Arc<Wake>,
    task: JoinHandle<()>,
}

impl Workers {
    /// No worker yet.
    pub(crate) fn new(agent: Arc<Agent>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            agent,
            start: Instant::now(),
            stop,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods as last seen.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        let state = self.state();
        let mut pods: Vec<_> = state
            .running
            .values()
            .map(|r| Arc::clone(&r.told.borrow().pod))
            .collect();
        pods.sort_by(|a, b| {
            (view::namespace(a), view::name(a)).cmp(&(view::namespace(b), view::name(b)))
        });
        pods
    }

    /// A pod by namespace and name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods();
        pods.into_iter()
            .find(|pod| view::namespace(pod) == namespace && view::name(pod) == name)
    }

    /// Follows the pods of this node until `stop`.
    pub(crate) async fn follow(&self, client: kube::Client, stop: CancellationToken) {
        let api: Api<Pod> = Api::all(client);
        let selector = format!("spec.nodeName={}", self.agent.settings.node_name);
        let config = watcher::Config::default().fields(&selector);
        let events = watcher::watcher(api, config).default_backoff();
        futures::pin_mut!(events);
        let mut listing: Vec<String> = Vec::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Some(Ok(Event::Init)) => listing.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    listing.push(view::uid(&pod).to_owned());
                    self.apply(pod);
                }
                Some(Ok(Event::InitDone)) => {
                    self.retain(&listing);
                    self.state().listed = true;
                }
                Some(Ok(Event::Apply(pod))) => self.apply(pod),
                Some(Ok(Event::Delete(pod))) => self.gone(view::uid(&pod), Some(pod.clone())),
                Some(Err(error)) => warn!(%error, "the watch of pods fails"),
                None => return,
            }
        }
    }

    /// Pods that are not in the list are gone.
    fn retain(&self, listed: &[String]) {
        let missing: Vec<String> = {
            let state = self.state();
            let uids = state.running.keys();
            uids.filter(|uid| !listed.contains(uid)).cloned().collect()
        };
        for uid in missing {
            self.gone(&uid, None);
        }
    }

    fn apply(&self, pod: Pod) {
        let uid = view::uid(&pod).to_owned();
        let pod = Arc::new(pod);
        let mut state = self.state();
        if let Some(running) = state.running.get(&uid).filter(|r| !r.task.is_finished()) {
            let before = Arc::clone(&running.told.borrow().pod);
            let matters = differs(&before, &pod);
            if matters {
                self.agent.sources.register(&pod);
            }
            if !self.agent.settings.exact {
                if retry_asked(&before, &pod) {
                    running
                        .wake
                        .early(format!("annotation {} was set", pulls::RETRY_NOW));
                }
                if pod.metadata.deletion_timestamp.is_some() {
                    running.wake.cancel.cancel();
                }
            }
            running.told.send_if_modified(|told| {
                told.pod = pod;
                matters
            });
            return;
        }
        if state.closed {
            return;
        }
        self.agent.sources.register(&pod);
        let running = self.spawn(pod);
        state.running.insert(uid, running);
    }

    fn spawn(&self, pod: Arc<Pod>) -> Running {
        let (told, receiver) = watch::channel(Told { pod, gone: false });
        let wake = Wake::new(CancellationToken::new());
        let worker = Worker {
            agent: Arc::clone(&self.agent),
            told: receiver,
            wake: Arc::clone(&wake),
            start: self.start,
            stop: self.stop.clone(),
        };
        let task = towline_sys::task::spawn("pod", worker.run());
        Running { told, wake, task }
    }

    fn gone(&self, uid: &str, last: Option<Pod>) {
        let mut state = self.state();
        let Some(running) = state.running.get(uid) else {
            return;
        };
        if running.task.is_finished() {
            state.running.remove(uid);
            drop(state);
            self.agent.status.forget(uid);
            return;
        }
        if !self.agent.settings.exact {
            running.wake.cancel.cancel();
        }
        running.told.send_modify(|told| {
            if let Some(last) = last {
                told.pod = Arc::new(last);
            }
            told.gone = true;
        });
    }

    /// Wakes workers whose pod changed in the runtime or in its probes.
    pub(crate) async fn wake_changed(
        &self,
        mut changed: mpsc::Receiver<String>,
        stop: CancellationToken,
    ) {
        loop {
            let uid = tokio::select! {
                uid = changed.recv() => uid,
                () = stop.cancelled() => return,
            };
            let Some(uid) = uid else { return };
            if let Some(running) = self.state().running.get(&uid) {
                running.wake.now();
            }
        }
    }

    /// Ends what belongs to no pod, every two seconds.
    pub(crate) async fn keep_house(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.housekeep().await,
                () = stop.cancelled() => return,
            }
        }
    }

    /// Attempts early when a pull secret that a pod names was made or changed.
    pub(crate) async fn wake_sources(
        &self,
        mut changes: mpsc::Receiver<Changed>,
        stop: CancellationToken,
    ) {
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = stop.cancelled() => return,
            };
            let Some(change) = change else { return };
            let (namespace, name) = (&change.id.0, &change.id.1);
            for running in self.state().running.values() {
                let pod = Arc::clone(&running.told.borrow().pod);
                if view::namespace(&pod) != namespace {
                    continue;
                }
                let pulls_with =
                    change.kind == What::Secret && credentials::names(&pod).contains(name);
                if pulls_with && !change.deleted && !self.agent.settings.exact {
                    let what = if change.created { "created" } else { "changed" };
                    running
                        .wake
                        .early(format!("pull secret \"{name}\" was {what}"));
                } else if !pulls_with && uses(&pod, &change) {
                    running.wake.now();
                }
            }
        }
    }

    /// Ends what the runtime or the disk holds of pods that the API does not have.
    async fn housekeep(&self) {
        let orphans: Vec<String> = {
            let mut state = self.state();
            if !state.listed || state.closed {
                return;
            }
            state
                .running
                .retain(|_, running| !(running.task.is_finished() && running.told.borrow().gone));
            let mut held = self.agent.pleg.uids();
            held.extend(self.agent.volumes.pods_on_disk());
            held.sort();
            held.dedup();
            held.retain(|uid| state.running.get(uid).is_none_or(|r| r.task.is_finished()));
            held
        };
        if self.agent.pleg.last().is_none() {
            return;
        }
        for uid in orphans {
            let view = self.agent.pleg.view(&uid);
            info!(
                uid,
                pod = view.name,
                namespace = view.namespace,
                "what belongs to no pod is removed"
            );
            if let Err(error) = self.remove_orphan(&uid, &view).await {
                warn!(uid, error, "an orphan cannot be removed");
            }
        }
    }

    async fn remove_orphan(&self, uid: &str, view: &PodView) -> Result<(), String> {
        for container in view.live() {
            let grace = container.grace_seconds.unwrap_or(30);
            let stopped = self.agent.cri.stop_container(&container.id, grace).await;
            stopped.map_err(|error| error.to_string())?;
        }
        kill::remove(&self.agent, view)
            .await
            .map_err(|error| error.to_string())?;
        let torn = self.agent.volumes.tear_down(uid).await;
        torn.map_err(|error| towline_sys::task::chain(&error))
    }

    /// Ends the containers of all pods, which have at most so many seconds to end by themselves. The objects stay in the
    /// API, as when a node is switched off.
    pub(crate) async fn stop_pods(&self, longest_grace: i64) {
        let running: Vec<Running> = {
            let mut state = self.state();
            state.closed = true;
            state.running.drain().map(|(_, running)| running).collect()
        };
        let stop = running.into_iter().map(|running| async move {
            let pod = Arc::clone(&running.told.borrow().pod);
            running.wake.cancel.cancel();
            running.task.abort();
            // Aborted on purpose; only its end counts.
            drop(running.task.await);
            self.stop_pod(&pod, longest_grace).await;
        });
        join_all(stop).await;
    }

    pub(crate) async fn unmount_volumes(&self) -> Result<(), FsError> {
        self.agent.volumes.unmount_all().await
    }

    async fn stop_pod(&self, pod: &Arc<Pod>, longest_grace: i64) {
        let agent = &self.agent;
        let uid = view::uid(pod);
        agent.probes.remove_pod(uid);
        agent.pleg.list_now().await;
        let view = agent.pleg.view(uid);
        let stopped = kill::pod(agent, pod, &view, kill::grace(pod).min(longest_grace)).await;
        let removed = match stopped {
            Ok(()) => kill::remove(agent, &view).await,
            error => error,
        };
        if let Err(error) = removed {
            warn!(pod = view::full_name(pod), %error, "pod not stopped");
        }
        if let Err(error) = agent.volumes.tear_down(uid).await {
            warn!(
                pod = view::full_name(pod),
                error = towline_sys::task::chain(&error),
                "volumes not removed"
            );
        }
    }
}

/// Whether a change of the pod asks for a sync. The status and our own annotation do not.
fn differs(before: &Pod, after: &Pod) -> bool {
    before.spec != after.spec
        || before.metadata.labels != after.metadata.labels
        || before.metadata.deletion_timestamp != after.metadata.deletion_timestamp
        || before.metadata.deletion_grace_period_seconds
            != after.metadata.deletion_grace_period_seconds
        || foreign_annotations(before) != foreign_annotations(after)
}

fn retry_asked(before: &Pod, after: &Pod) -> bool {
    let asked = |pod: &Pod| {
        pod.metadata
            .annotations
            .as_ref()?
            .get(pulls::RETRY_NOW)
            .cloned()
    };
    let now = asked(after);
    now.is_some() && now != asked(before)
}

fn uses(pod: &Pod, change: &Changed) -> bool {
    let (secrets, maps) = crate::sources::named(pod);
    match change.kind {
        What::Secret => secrets.contains(&change.id),
        What::ConfigMap => maps.contains(&change.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &serde_json::Value, phase: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "annotations": annotations},
            "spec": {"containers": []}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn status_and_our_own_annotation_wake_nobody() {
        let before = pod(&serde_json::json!({}), "Pending");
        assert!(!differs(&before, &pod(&serde_json::json!({}), "Running")));
        assert!(!differs(
            &before,
            &pod(&serde_json::json!({"towline.dev/pulls": "{}"}), "Pending")
        ));
        let asked = pod(
            &serde_json::json!({"towline.dev/retry-now": "1"}),
            "Pending",
        );
        assert!(differs(&before, &asked) && retry_asked(&before, &asked));
        assert!(!retry_asked(&asked, &asked));
    }
}
