//! Secrets and config maps that pods name, kept current by one watch each.
//!
//! A node may read only what its own pods name, so each object is watched by its name, from the first pod that names it
//! until the last one is gone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long a reader waits for the first answer of a watch before it asks directly.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Namespace and name.
pub(crate) type Id = (String, String);

/// An object of which something that matters has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) kind: What,
    pub(crate) id: Id,
    /// It was not there before.
    pub(crate) created: bool,
    /// It is gone.
    pub(crate) deleted: bool,
}

/// Kind of a watched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Secret,
    ConfigMap,
}

/// What the cache needs to know of a kind.
pub(crate) trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + std::fmt::Debug
    + serde::de::DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const WHAT: What;
    /// Whether two versions hold the same content.
    fn same(&self, other: &Self) -> bool;
}

impl Watched for Secret {
    const WHAT: What = What::Secret;
    fn same(&self, other: &Self) -> bool {
        self.data == other.data && self.type_ == other.type_ && self.uid() == other.uid()
    }
}

impl Watched for ConfigMap {
    const WHAT: What = What::ConfigMap;
    fn same(&self, other: &Self) -> bool {
        self.data == other.data && self.binary_data == other.binary_data
    }
}

/// The latest version of each named object of one kind.
pub(crate) struct Objects<K> {
    client: kube::Client,
    changes: mpsc::Sender<Changed>,
    stop: CancellationToken,
    state: Mutex<HashMap<Id, Entry<K>>>,
}

struct Entry<K> {
    users: HashSet<String>,
    current: watch::Receiver<Known<K>>,
    stop: CancellationToken,
}

/// What is known of an object.
#[derive(Debug, Clone)]
enum Known<K> {
    /// The watch has not answered yet, or fails.
    Nothing,
    /// It is not there.
    Absent,
    Present(Arc<K>),
}

impl<K: Watched> Objects<K> {
    /// A cache that reports changes to `changes`.
    pub(crate) fn new(
        client: kube::Client,
        changes: mpsc::Sender<Changed>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            client,
            changes,
            stop,
            state: Mutex::default(),
        }
    }

    /// Says which objects a pod names from now on. An empty set lets go of all.
    pub(crate) fn register(&self, pod_uid: &str, wanted: &HashSet<Id>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for id in wanted {
            let entry = state
                .entry(id.clone())
                .or_insert_with(|| self.watch(id.clone()));
            entry.users.insert(pod_uid.to_owned());
        }
        state.retain(|id, entry| {
            if !wanted.contains(id) {
                entry.users.remove(pod_uid);
            }
            if entry.users.is_empty() {
                entry.stop.cancel();
            }
            !entry.users.is_empty()
        });
    }

    fn watch(&self, id: Id) -> Entry<K> {
        let (sender, current) = watch::channel(Known::Nothing);
        let stop = self.stop.child_token();
        let api = Api::<K>::namespaced(self.client.clone(), &id.0);
        let follow = follow(api, id, sender, self.changes.clone());
        let ended = stop.clone();
        drop(towline_sys::task::spawn("object-watch", async move {
            tokio::select! {
                () = follow => {}
                () = ended.cancelled() => {}
            }
        }));
        Entry {
            users: HashSet::new(),
            current,
            stop,
        }
    }

    /// The object; nothing where it does not exist. Asks the API server where no watch has answered.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, kube::Error> {
        let id = (namespace.to_owned(), name.to_owned());
        let current = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.get(&id).map(|entry| entry.current.clone())
        };
        if let Some(mut current) = current {
            let answered = current.wait_for(|known| !matches!(known, Known::Nothing));
            if let Ok(Ok(known)) = tokio::time::timeout(FIRST_ANSWER, answered).await {
                match &*known {
                    Known::Present(object) => return Ok(Some(Arc::clone(object))),
                    Known::Absent => return Ok(None),
                    Known::Nothing => {}
                }
            }
        }
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.map(Arc::new))
    }
}

async fn follow<K: Watched>(
    api: Api<K>,
    id: Id,
    sender: watch::Sender<Known<K>>,
    changes: mpsc::Sender<Changed>,
) {
    let stream = watcher::watch_object(api, &id.1).default_backoff();
    futures::pin_mut!(stream);
    let mut last: Known<K> = Known::Nothing;
    while let Some(next) = stream.next().await {
        let object = match next {
            Ok(object) => object,
            Err(error) => {
                debug!(namespace = id.0, name = id.1, %error, "watch of an object fails");
                sender.send_replace(Known::Nothing);
                continue;
            }
        };
        let change = match (&last, &object) {
            (Known::Absent, Some(_)) => Some((true, false)),
            (Known::Present(before), Some(now)) if !before.same(now) => Some((false, false)),
            (Known::Present(_), None) => Some((false, true)),
            _ => None,
        };
        last = object.map_or(Known::Absent, |object| Known::Present(Arc::new(object)));
        sender.send_replace(last.clone());
        if let Some((created, deleted)) = change {
            let changed = Changed {
                kind: K::WHAT,
                id: id.clone(),
                created,
                deleted,
            };
            if changes.send(changed).await.is_err() {
                return;
            }
        }
    }
}
