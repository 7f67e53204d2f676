//! The loop: watch, decide, bind; a pod that finds no node waits for a change of the cluster, or a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use tokio::time::Instant;
use towline_sys::task::{CancellationToken, Kind, Supervisor};

use crate::bind;
use crate::decide::{Decision, decide};
use crate::state::State;

/// A pod that found no node is looked at again at least this often.
const AGAIN: Duration = Duration::from_secs(60);
/// After a request that failed all are looked at again this soon.
const SOON: Duration = Duration::from_secs(1);
/// Changes that come close together are looked at once.
const SETTLE: Duration = Duration::from_millis(20);

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's API.
    pub kube: Config,
    /// The name that pods ask for in `schedulerName`.
    pub name: String,
}

impl Options {
    /// The scheduler that pods get which ask for none.
    pub fn new(kube: Config) -> Self {
        Self {
            kube,
            name: "default-scheduler".to_owned(),
        }
    }
}

/// Why the scheduler does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error("make a client for the cluster's API")]
    Client(#[source] Box<kube::Error>),
}

/// The scheduler.
#[derive(Debug)]
pub struct Service;

/// A running scheduler.
#[derive(Debug)]
pub struct Handle {
    tasks: Supervisor,
}

impl Service {
    /// Starts the scheduler.
    pub fn start(options: Options) -> Result<Handle, Error> {
        let client =
            Client::try_from(options.kube).map_err(|source| Error::Client(Box::new(source)))?;
        let tasks = Supervisor::new();
        let stop = tasks.token();
        tasks.spawn("scheduler", Kind::Critical, run(client, options.name, stop));
        Ok(Handle { tasks })
    }
}

impl Handle {
    /// Waits until the scheduler ends of its own accord, and says why.
    pub async fn ended(&self) -> String {
        self.tasks.stopping().await.to_string()
    }

    /// Stops; gives the tasks that did not end in time.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<String> {
        self.tasks.shutdown("asked to stop");
        self.tasks.finish(deadline).await.unfinished
    }
}

async fn run(client: Client, name: String, stop: CancellationToken) {
    let pods =
        watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let nodes =
        watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let (mut pods, mut nodes) = (std::pin::pin!(pods), std::pin::pin!(nodes));
    let mut state = State::default();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut due = Instant::now() + AGAIN;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(event) = pods.next() => match event {
                Ok(event) => state.pod(event),
                Err(error) => tracing::warn!(%error, "cannot watch pods"),
            },
            Some(event) = nodes.next() => match event {
                Ok(event) => state.node(event),
                Err(error) => tracing::warn!(%error, "cannot watch nodes"),
            },
            () = tokio::time::sleep_until(due), if state.whole() => {
                let good = schedule(&client, &name, &mut state, &mut told).await;
                due = Instant::now() + if good { AGAIN } else { SOON };
                continue;
            }
        }
        due = due.min(Instant::now() + SETTLE);
    }
}

/// Goes through the pods that wait; false when a request failed. What was said of a pod is said again only when it changes.
async fn schedule(
    client: &Client,
    name: &str,
    state: &mut State,
    told: &mut BTreeMap<String, String>,
) -> bool {
    let mut good = true;
    let waiting = state.waiting(name);
    told.retain(|uid, _| {
        waiting
            .iter()
            .any(|pod| pod.metadata.uid.as_ref() == Some(uid))
    });
    for pod in waiting {
        let result = match decide(&pod, &state.candidates()) {
            Decision::Bind(node) => {
                let bound = bind::bind(client, name, &pod, &node).await;
                if bound.is_ok() {
                    tracing::info!(pod = pod.name_any(), node, "bound");
                    state.bound(&pod, &node);
                }
                bound
            }
            Decision::Wait(why) => {
                let uid = pod.uid().unwrap_or_default();
                if told.get(&uid) == Some(&why) {
                    continue;
                }
                let said = bind::unschedulable(client, name, &pod, &why).await;
                if said.is_ok() {
                    told.insert(uid, why);
                }
                said
            }
        };
        if let Err(error) = result {
            tracing::warn!(pod = pod.name_any(), %error, "cannot schedule");
            good = false;
        }
    }
    good
}
