//! An API server, the controllers, and pods that become ready unless their image is `broken`.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::task::JoinSet;
use towline_apiserver::Identity;

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) kubeconfig: std::path::PathBuf,
    _controllers: towline_controllers::Handle,
    _server: towline_apiserver::Handle,
    _pods: JoinSet<()>,
    _folder: tempfile::TempDir,
}

async fn config(server: &towline_apiserver::Handle, identity: &Identity) -> Config {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(identity).unwrap()).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let options = towline_apiserver::Options::new(folder.path().join("api"), vec![address]);
        let server = towline_apiserver::Service::start(options).await.unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig(&Identity::Admin).unwrap()).unwrap();
        let controllers =
            towline_controllers::Options::new(config(&server, &Identity::Controllers).await);
        let controllers = towline_controllers::Service::start(controllers).unwrap();
        let client = Client::try_from(config(&server, &Identity::Admin).await).unwrap();
        let mut pods = JoinSet::new();
        pods.spawn(run_pods(client.clone()));
        Self {
            client,
            kubeconfig,
            _controllers: controllers,
            _server: server,
            _pods: pods,
            _folder: folder,
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), "default")
    }
}

async fn run_pods(client: Client) {
    let all = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let mut pods = std::pin::pin!(all.default_backoff().applied_objects());
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        let fresh = pod
            .status
            .as_ref()
            .is_none_or(|status| status.phase.as_deref() != Some("Running"));
        let broken = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .any(|container| container.image.as_deref() == Some("broken"));
        if !fresh || broken || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let api: Api<Pod> =
            Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        // A pod that went meanwhile needs no status.
        drop(
            api.patch_status(
                pod.metadata.name.as_deref().unwrap(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await,
        );
    }
}

/// Waits until `check` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    check: impl Fn() -> F,
) -> T {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match check().await {
            Ok(found) => return found,
            Err(state) => assert!(tokio::time::Instant::now() < until, "{what}: {state}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
