//! Namespaces: each has a service account `default` and the cluster's certificate authority, and takes all it holds with it.

mod emptying;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;
use towline_sys::task::CancellationToken;

use self::emptying::Emptying;
use crate::cache::Cache;
use crate::retry::Retry;
use crate::workloads::is;

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

struct State {
    client: Client,
    ca: String,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
    maps: Cache<ConfigMap>,
}

/// Runs until told to stop.
pub(crate) async fn run(client: Client, ca: String, stop: CancellationToken) {
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let namespaces = watcher(
        Api::<Namespace>::all(client.clone()),
        watcher::Config::default(),
    );
    let accounts = watcher(Api::<ServiceAccount>::all(client.clone()), named(ACCOUNT));
    let maps = watcher(Api::<ConfigMap>::all(client.clone()), named(ROOT_CA));
    let mut namespaces = pin!(namespaces.default_backoff());
    let (mut accounts, mut maps) = (
        pin!(accounts.default_backoff()),
        pin!(maps.default_backoff()),
    );
    let mut state = State {
        client,
        ca,
        namespaces: Cache::default(),
        accounts: Cache::default(),
        maps: Cache::default(),
    };
    let mut dirty: BTreeSet<String> = BTreeSet::new();
    let mut retry: Retry<String> = Retry::default();
    let mut emptying = Emptying::new(state.client.clone());
    loop {
        let wait = async {
            match retry.next() {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Some(event) = namespaces.next() => take(event, &mut state.namespaces, &mut dirty),
            Some(event) = accounts.next() => take(event, &mut state.accounts, &mut dirty),
            Some(event) = maps.next() => take(event, &mut state.maps, &mut dirty),
            (name, emptied) = emptying.next() => note(&mut retry, &name, emptied),
            () = wait => dirty.extend(retry.take(Instant::now())),
        }
        if !(state.namespaces.synced() && state.accounts.synced() && state.maps.synced()) {
            continue;
        }
        for name in std::mem::take(&mut dirty) {
            let Some(namespace) = state.namespaces.get(&(String::new(), name.clone())) else {
                continue;
            };
            if namespace.metadata.deletion_timestamp.is_some() {
                emptying.add(namespace.clone());
            } else {
                note(&mut retry, &name, state.furnish(&name).await.map(|()| None));
            }
        }
    }
}

/// Notes how the work on a namespace ended, and when it is due again.
fn note(retry: &mut Retry<String>, name: &String, ended: Result<Option<Duration>, kube::Error>) {
    match ended {
        Ok(again) => retry.succeeded(name, again, Instant::now()),
        Err(error) => {
            tracing::warn!(namespace = name, %error, "cannot reconcile");
            retry.failed(name, Instant::now());
        }
    }
}

/// Takes in an event; the namespaces to look at again are added to `dirty`.
fn take<K: k8s_openapi::Metadata<Ty = ObjectMeta>>(
    event: Result<Event<K>, watcher::Error>,
    cache: &mut Cache<K>,
    dirty: &mut BTreeSet<String>,
) {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!(%error, "cannot watch {}", std::any::type_name::<K>());
            return;
        }
    };
    if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &event {
        let metadata = object.metadata();
        dirty.extend(metadata.namespace.clone().or_else(|| metadata.name.clone()));
    }
    cache.apply(event);
}

impl State {
    /// Gives a namespace what every one has.
    async fn furnish(&mut self, name: &str) -> Result<(), kube::Error> {
        let at = |object: &str| (name.to_owned(), object.to_owned());
        if self.accounts.get(&at(ACCOUNT)).is_none() {
            let account = ServiceAccount {
                metadata: metadata(name, ACCOUNT),
                ..ServiceAccount::default()
            };
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
            if let Some(account) = fresh(api.create(&PostParams::default(), &account).await)? {
                self.accounts.put(account);
            }
        }
        let held = self.maps.get(&at(ROOT_CA));
        let current = held
            .and_then(|map| map.data.as_ref())
            .and_then(|data| data.get("ca.crt"));
        if current == Some(&self.ca) {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), name);
        let data = BTreeMap::from([("ca.crt".to_owned(), self.ca.clone())]);
        let written = if held.is_some() {
            let patch = Patch::Merge(json!({"data": data}));
            Some(api.patch(ROOT_CA, &PatchParams::default(), &patch).await?)
        } else {
            let mut metadata = metadata(name, ROOT_CA);
            let note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
            metadata.annotations = Some(BTreeMap::from([(
                "kubernetes.io/description".to_owned(),
                note.to_owned(),
            )]));
            let map = ConfigMap {
                metadata,
                data: Some(data),
                ..ConfigMap::default()
            };
            fresh(api.create(&PostParams::default(), &map).await)?
        };
        if let Some(map) = written {
            self.maps.put(map);
        }
        Ok(())
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

/// What was created; nothing when another was faster, or the namespace just went.
fn fresh<K>(created: Result<K, kube::Error>) -> Result<Option<K>, kube::Error> {
    match created {
        Ok(object) => Ok(Some(object)),
        Err(error) if is(&error, 409) || is(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}
