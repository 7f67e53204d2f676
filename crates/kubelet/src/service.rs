//! The node agent: put together, started, stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use towline_sys::format::FormatVersion;
use towline_sys::task::{Kind, Outcome, Supervisor};
use tracing::info;

use crate::agent::{Agent, Settings, Troubles};
use crate::cri::Cri;
use crate::events::recorder;
use crate::images::Images;
use crate::images::collect::Collector;
use crate::images::puller::Puller;
use crate::metrics::Metrics;
use crate::node::{self, Capacity, Identity, Registration};
use crate::objects::Objects;
use crate::options::{Error, Kube, Options, Runtime};
use crate::pleg::Pleg;
use crate::probes::Probes;
use crate::server::Server;
use crate::sources::Sources;
use crate::status::StatusManager;
use crate::volumes::{Tokens, Volumes};
use crate::workers::Workers;

/// Queues between parts: what is waiting is bounded, senders wait.
const QUEUE: usize = 1024;
/// What starts and ends pods stops first.
const WORK: u8 = 0;
/// What tells about it stops after.
const TELL: u8 = 1;

/// The form of the root directory.
const FORMAT: FormatVersion = FormatVersion::new("towline-kubelet", 1);

/// The node agent.
#[derive(Debug)]
pub struct Service;

/// A running node agent.
#[derive(Clone)]
pub struct Handle {
    supervisor: Supervisor,
    workers: Arc<Workers>,
    address: SocketAddr,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Starts the agent: connects to the runtime, binds the endpoint, registers the node and follows its pods. The API
    /// server may be away; the runtime must answer.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        // Another part of the process may have chosen already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        prepare(&options.root)?;
        let client = client(&options.kube).await?;
        let cri = Cri::new(channel(&options.runtime).await?);
        let version = cri
            .version()
            .await
            .map_err(|error| Error::Version(error.to_string()))?;
        let names = [
            options.node_name.clone(),
            options.node_ip.to_string(),
            "localhost".to_owned(),
        ];
        let replay = options.replay.clone();
        let server = Server::bind(options.listen, &options.serving, &names, replay).await?;
        let address = server.address();
        let supervisor = Supervisor::new();
        let parts = Parts::build(
            &options,
            client.clone(),
            cri,
            &version.runtime_name,
            &supervisor,
        );
        info!(
            node = options.node_name, %address, runtime = version.runtime_name, version = version.runtime_version,
            "node agent started"
        );
        let identity = Identity {
            name: options.node_name.clone(),
            ip: options.node_ip.to_string(),
            port: address.port(),
            labels: options.node_labels.clone(),
            root: options.root.clone(),
            runtime: format!("{}://{}", version.runtime_name, version.runtime_version),
        };
        let workers = Arc::clone(&parts.workers);
        parts.spawn(client, server, identity, &supervisor);
        Ok(Handle {
            supervisor,
            workers,
            address,
        })
    }
}

/// Everything, before it runs.
struct Parts {
    agent: Arc<Agent>,
    workers: Arc<Workers>,
    writer: recorder::Writer,
    changed: (mpsc::Sender<String>, mpsc::Receiver<String>),
    changes: mpsc::Receiver<crate::objects::Changed>,
    image_gc: crate::ImageGc,
}

impl Parts {
    fn build(
        options: &Options,
        client: kube::Client,
        cri: Cri,
        runtime: &str,
        supervisor: &Supervisor,
    ) -> Self {
        let (work, clock) = (supervisor.stage_token(WORK), options.clock);
        let (recorder, writer) =
            recorder::recorder(client.clone(), options.node_name.clone(), clock);
        let metrics = Arc::new(Metrics::default());
        let puller = Puller::new(
            cri.clone(),
            options.max_parallel_image_pulls,
            options.registry_pull_qps,
            options.registry_burst,
            clock,
        );
        let images = Images::new(
            cri.clone(),
            puller,
            recorder.clone(),
            clock,
            Arc::clone(&metrics),
        );
        let images = Arc::new(images);
        let status = StatusManager::new(
            client.clone(),
            Arc::clone(&images),
            clock,
            !options.kubernetes_exact,
        );
        let (changes_sender, changes) = mpsc::channel(QUEUE);
        let sources = Sources {
            secrets: Arc::new(Objects::new(
                client.clone(),
                changes_sender.clone(),
                work.clone(),
            )),
            config_maps: Arc::new(Objects::new(client.clone(), changes_sender, work.clone())),
        };
        let changed = mpsc::channel(QUEUE);
        let host_ip = options.node_ip.to_string();
        let probes = Probes::new(
            cri.clone(),
            recorder.clone(),
            changed.0.clone(),
            host_ip.clone(),
            work.clone(),
        );
        let tokens = Tokens::new(Some(client));
        let agent = Arc::new(Agent {
            settings: settings(options, runtime, host_ip),
            pleg: Pleg::new(cri.clone()),
            cri,
            images,
            recorder,
            status,
            volumes: Volumes::new(options.root.clone(), sources.clone(), tokens, clock),
            probes,
            sources,
            clock,
            metrics,
            crash: Mutex::default(),
            troubles: Troubles::default(),
            network: Mutex::default(),
        });
        let workers = Workers::new(Arc::clone(&agent), work);
        Self {
            agent,
            workers,
            writer,
            changed,
            changes,
            image_gc: options.image_gc.clone(),
        }
    }

    fn spawn(
        self,
        client: kube::Client,
        server: Server,
        identity: Identity,
        supervisor: &Supervisor,
    ) {
        let (work, tell) = (supervisor.stage_token(WORK), supervisor.stage_token(TELL));
        let (agent, workers) = (self.agent, self.workers);
        let (changed_sender, changed) = self.changed;
        let critical = |name: &'static str| (name, Kind::Critical);
        let spawn = |stage: u8,
                     (name, kind): (&'static str, Kind),
                     task: futures::future::BoxFuture<'static, ()>| {
            supervisor.spawn_in(stage, name, kind, task);
        };
        let (a, stop) = (Arc::clone(&agent), tell.clone());
        // Stopping pods still needs the listing.
        spawn(
            TELL,
            critical("kubelet-relist"),
            Box::pin(async move { a.pleg.run(changed_sender, stop).await }),
        );
        let (w, stop, c) = (Arc::clone(&workers), work.clone(), client.clone());
        spawn(
            WORK,
            critical("kubelet-pods"),
            Box::pin(async move { w.follow(c, stop).await }),
        );
        let (w, stop) = (Arc::clone(&workers), tell.clone());
        spawn(
            TELL,
            critical("kubelet-wake"),
            Box::pin(async move { w.wake_changed(changed, stop).await }),
        );
        let (w, stop, changes) = (Arc::clone(&workers), work.clone(), self.changes);
        spawn(
            WORK,
            critical("kubelet-sources"),
            Box::pin(async move { w.wake_sources(changes, stop).await }),
        );
        let (w, stop) = (Arc::clone(&workers), work.clone());
        spawn(
            WORK,
            critical("kubelet-housekeeping"),
            Box::pin(async move { w.keep_house(stop).await }),
        );
        let collect = Collector {
            cri: agent.cri.clone(),
            clock: agent.clock,
            recorder: agent.recorder.clone(),
            node: identity.name.clone(),
            rules: self.image_gc,
            metrics: Arc::clone(&agent.metrics),
        };
        let collect = collect.run(work.clone());
        spawn(WORK, critical("kubelet-image-gc"), Box::pin(collect));
        let (a, stop) = (Arc::clone(&agent), tell.clone());
        spawn(
            TELL,
            critical("kubelet-status"),
            Box::pin(async move { a.status.run(stop).await }),
        );
        let (writer, stop) = (self.writer, tell);
        spawn(TELL, critical("kubelet-events"), Box::pin(writer.run(stop)));
        let lease = node::renew(
            client.clone(),
            identity.name.clone(),
            agent.clock,
            work.clone(),
        );
        spawn(WORK, critical("kubelet-lease"), Box::pin(lease));
        let registration = Registration {
            client: client.clone(),
            agent: Arc::clone(&agent),
            identity,
        };
        spawn(
            WORK,
            critical("kubelet-node"),
            Box::pin(registration.run(work.clone())),
        );
        spawn(
            WORK,
            critical("kubelet-server"),
            Box::pin(server.run(agent, workers, client, work)),
        );
    }
}

fn settings(options: &Options, runtime: &str, host_ip: String) -> Settings {
    let services = options.api_address.iter().flat_map(|(host, port)| {
        let port = port.to_string();
        [
            ("KUBERNETES_SERVICE_HOST", host.clone()),
            ("KUBERNETES_SERVICE_PORT", port.clone()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", port),
        ]
    });
    Settings {
        node_name: options.node_name.clone(),
        host_ip,
        log_root: options
            .log_root
            .clone()
            .unwrap_or_else(|| options.root.join("logs")),
        cluster_dns: options.cluster_dns.clone(),
        cluster_domain: options.cluster_domain.clone(),
        resolv_conf: options.resolv_conf.clone(),
        cgroup_root: options.cgroup_root.clone(),
        services: services
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        exact: options.kubernetes_exact,
        runtime: runtime.to_owned(),
        capacity: Capacity::read(&options.root, options.max_pods),
    }
}

fn prepare(root: &Path) -> Result<(), Error> {
    towline_sys::fs::create_dir_all_mode(root, 0o755).map_err(Error::Root)?;
    FORMAT
        .check_or_write(root)
        .map_err(|error| Error::Format(error.to_string()))?;
    towline_sys::fs::create_dir_all_mode(root.join("pods"), 0o750).map_err(Error::Root)
}

async fn client(kube: &Kube) -> Result<kube::Client, Error> {
    let config = match kube {
        Kube::Client(client) => return Ok(client.clone()),
        Kube::Config(config) => config.as_ref().clone(),
        Kube::Kubeconfig(path) => {
            let failed = |source| Error::Kubeconfig {
                path: path.clone(),
                source,
            };
            let read = kube::config::Kubeconfig::read_from(path).map_err(failed)?;
            let options = kube::config::KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(failed)?
        }
    };
    kube::Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

async fn channel(runtime: &Runtime) -> Result<tonic::transport::Channel, Error> {
    match runtime {
        Runtime::Channel(channel) => Ok(channel.clone()),
        Runtime::Endpoint(endpoint) => towline_cri::client::connect(endpoint)
            .await
            .map_err(Error::Runtime),
    }
}

impl Handle {
    /// Where the endpoint for logs listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends and removes the containers of all pods within `deadline`: each has its own grace to end by itself, though at
    /// most half of the deadline. The pods' objects stay; no pod is started after this. False when the deadline passed
    /// first.
    pub async fn stop_pods(&self, deadline: Duration) -> bool {
        let grace = i64::try_from(deadline.as_secs() / 2).unwrap_or(i64::MAX);
        tokio::time::timeout(deadline, self.workers.stop_pods(grace.max(1)))
            .await
            .is_ok()
    }

    /// Unmounts the volumes of all pods, for when the deadline of [`Self::stop_pods`] passed and the runtime ended the
    /// containers instead.
    pub async fn unmount_volumes(&self) -> Result<(), towline_sys::fs::FsError> {
        self.workers.unmount_volumes().await
    }

    /// Stops the agent. Containers go on running; a new agent finds them again. Names the tasks that did not end.
    pub async fn shutdown(&self, deadline: Duration) -> Outcome {
        self.supervisor.shutdown("asked to stop");
        self.supervisor.finish(deadline).await
    }

    /// Waits until the agent stops, asked or by itself.
    pub async fn stopped(&self) -> towline_sys::task::Reason {
        self.supervisor.stopping().await
    }
}
