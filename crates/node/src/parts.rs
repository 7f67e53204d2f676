//! Each part of the node, started on its public protocol.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client, Config};
use tokio::time::Instant;

use crate::{Error, Options};

/// The API server and the address at which pods reach it.
pub(crate) struct Apiserver {
    pub(crate) handle: towline_apiserver::Handle,
    pub(crate) for_pods: Option<SocketAddr>,
}

/// Every running part.
pub(crate) struct Parts {
    pub(crate) registry: towline_registry::Handle,
    pub(crate) runtime: Option<towline_runtime::Handle>,
    pub(crate) apiserver: Apiserver,
    pub(crate) scheduler: towline_scheduler::Handle,
    pub(crate) controllers: towline_controllers::Handle,
    pub(crate) kubelet: towline_kubelet::Handle,
}

impl Parts {
    /// Waits until a part ends of its own accord.
    pub(crate) async fn ended(&self) -> String {
        let runtime = async {
            match &self.runtime {
                Some(runtime) => runtime.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = runtime => format!("runtime: {why}"),
            why = self.kubelet.stopped() => format!("kubelet: {why}"),
            why = self.scheduler.ended() => format!("scheduler: {why}"),
            why = self.controllers.ended() => format!("controllers: {why}"),
        }
    }

    /// Pods first, then who would make new ones, then what serves them. Each part gets what is left of the time.
    pub(crate) async fn stop(self, end: Instant) -> Vec<String> {
        let left = |share: u32| end.saturating_duration_since(Instant::now()) / share;
        // The pods are what takes time: a container that does not listen is killed after half of their share.
        let pods = |left: Duration| left * 2 / 3;
        let mut unfinished = Vec::new();
        unfinished.extend(
            self.controllers
                .shutdown(left(4))
                .await
                .into_iter()
                .map(|task| format!("controllers: {task}")),
        );
        unfinished.extend(
            self.scheduler
                .shutdown(left(4))
                .await
                .into_iter()
                .map(|task| format!("scheduler: {task}")),
        );
        // Ends containers and removes volumes, of which some are mounts; the pod objects stay for the next start.
        let pods_ended = self.kubelet.stop_pods(pods(left(1))).await;
        if !pods_ended {
            unfinished.push("kubelet: pods".to_owned());
        }
        let outcome = self.kubelet.shutdown(left(4)).await;
        unfinished.extend(
            outcome
                .unfinished
                .into_iter()
                .map(|task| format!("kubelet: {task}")),
        );
        let stopped = match self.runtime {
            Some(runtime) => Some(runtime.stop_all(left(2)).await),
            None => None,
        };
        match stopped {
            None => {}
            Some(Ok(outcome)) => unfinished.extend(
                outcome
                    .unfinished
                    .into_iter()
                    .map(|task| format!("runtime: {task}")),
            ),
            Some(Err(error)) => {
                unfinished.push(format!("runtime: {}", towline_sys::task::chain(&error)));
            }
        }
        if !pods_ended && let Err(error) = self.kubelet.unmount_volumes().await {
            unfinished.push(format!("kubelet: {}", towline_sys::task::chain(&error)));
        }
        self.apiserver.handle.shutdown(left(2)).await;
        if !self.registry.shutdown(left(1)).await {
            unfinished.push("registry: requests".to_owned());
        }
        unfinished
    }
}

pub(crate) async fn registry(options: &Options) -> Result<towline_registry::Handle, Error> {
    let mut registry = towline_registry::Options::new(options.data_dir.join("registry"));
    registry.listen = vec![options.registry_listen];
    registry.access = options.registry_access.clone();
    registry.access_log = Some(options.data_dir.join("registry-access.log"));
    towline_registry::Service::start(registry)
        .await
        .map_err(|error| Error::component("registry")(error.into()))
}

pub(crate) async fn runtime(options: &Options) -> Result<towline_runtime::Handle, Error> {
    let run = options.data_dir.join("run");
    let mut runtime = towline_runtime::Options::new(
        options.data_dir.join("runtime"),
        run.join("pods"),
        run.join("cri.sock"),
        options.shim.clone(),
        options.unpacking.clone(),
    );
    runtime.client = options.client();
    runtime.ceilings = options.ceilings;
    runtime.store = options.store;
    runtime.keep_blobs = options.keep_blobs;
    runtime.cgroup_parent = format!("/{}", options.bridge());
    if let Some(network) = &mut runtime.network {
        network.bridge = options.bridge();
    }
    towline_runtime::Service::start(runtime)
        .await
        .map_err(|error| Error::component("runtime")(error.into()))
}

/// The API server also listens on the pods' gateway, so that a pod reaches it.
pub(crate) async fn apiserver(
    options: &Options,
    gateway: Option<IpAddr>,
) -> Result<Apiserver, Error> {
    let mut server = towline_apiserver::Options::new(
        options.data_dir.join("apiserver"),
        vec![options.api_listen],
    );
    server.server_ips.extend(gateway);
    let failed = |error: towline_apiserver::Error| Error::component("API server")(error.into());
    let mut handle = towline_apiserver::Service::start(server)
        .await
        .map_err(failed)?;
    let for_pods = match gateway {
        Some(gateway) => {
            let port = handle.local_addr().port();
            Some(
                handle
                    .listen_also(SocketAddr::new(gateway, port))
                    .await
                    .map_err(failed)?,
            )
        }
        None => None,
    };
    Ok(Apiserver { handle, for_pods })
}

pub(crate) fn scheduler(kube: Config) -> Result<towline_scheduler::Handle, Error> {
    let options = towline_scheduler::Options::new(kube);
    towline_scheduler::Service::start(options)
        .map_err(|error| Error::component("scheduler")(error.into()))
}

pub(crate) fn controllers(
    kube: Config,
    ca_pem: &str,
) -> Result<towline_controllers::Handle, Error> {
    let mut options = towline_controllers::Options::new(kube);
    options.ca_pem = Some(ca_pem.to_owned());
    towline_controllers::Service::start(options)
        .map_err(|error| Error::component("controllers")(error.into()))
}

pub(crate) async fn kubelet(
    options: &Options,
    apiserver: &Apiserver,
    endpoint: String,
    kube: Config,
) -> Result<towline_kubelet::Handle, Error> {
    let name = &options.node_name;
    let certified = apiserver.handle.issue_serving_cert(
        &format!("system:node:{name}"),
        std::slice::from_ref(name),
        &[options.kubelet_listen.ip()],
    );
    let certified = certified.map_err(|error| Error::component("kubelet")(error.into()))?;
    let mut kubelet = towline_kubelet::Options::new(
        towline_kubelet::Kube::Config(Box::new(kube)),
        towline_kubelet::Runtime::Endpoint(endpoint),
        name.clone(),
        options.data_dir.join("kubelet"),
    );
    kubelet.listen = options.kubelet_listen;
    kubelet.node_ip = options.kubelet_listen.ip();
    kubelet.serving = towline_kubelet::Serving {
        identity: Some((
            certified.certificate_pem.into_bytes(),
            certified.key_pem.into(),
        )),
        client_ca: Some(apiserver.handle.ca_pem().as_bytes().to_vec()),
    };
    kubelet.api_address = apiserver
        .for_pods
        .map(|address| (address.ip().to_string(), address.port()));
    kubelet.cgroup_root = match &options.foreign {
        Some(foreign) => foreign.cgroup.clone(),
        None => format!("/{}", options.bridge()),
    };
    kubelet.max_parallel_image_pulls = options.max_parallel_image_pulls;
    kubelet.registry_pull_qps = options.registry_pull_qps;
    kubelet.registry_burst = options.registry_burst;
    kubelet.image_gc = options.image_gc.clone();
    kubelet.kubernetes_exact = options.kubernetes_exact;
    kubelet.replay = crate::replay::with(options.client()).ok();
    towline_kubelet::Service::start(kubelet)
        .await
        .map_err(|error| Error::component("kubelet")(error.into()))
}

/// Waits until the node is ready and pods are admitted to the default namespace.
pub(crate) async fn ready(client: &Client, node: &str, patience: Duration) -> Result<(), Error> {
    let end = Instant::now() + patience;
    let nodes: Api<Node> = Api::all(client.clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let mut waiting_for = "kubelet";
    while Instant::now() < end {
        let ready = nodes
            .get_opt(node)
            .await
            .ok()
            .flatten()
            .is_some_and(|node| is_ready(&node));
        let admitted = accounts
            .get_opt("default")
            .await
            .is_ok_and(|account| account.is_some());
        if ready && admitted {
            return Ok(());
        }
        waiting_for = if ready { "controllers" } else { "kubelet" };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Error::NotReady {
        component: waiting_for,
        seconds: patience.as_secs(),
    })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
