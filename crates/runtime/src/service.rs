//! Starting and stopping the runtime.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tonic::transport::Server;
use towline_cause::Failure;
use towline_cri::MAX_MESSAGE;
use towline_cri::v1::image_service_server::ImageServiceServer;
use towline_cri::v1::runtime_service_server::RuntimeServiceServer;
use towline_distribution::{Client, OptionsError};
use towline_images::Images as Store;
use towline_sys::cgroup::Cgroup;
use towline_sys::format::{FormatError, FormatVersion};
use towline_sys::fs::{self, FsError};
use towline_sys::task::{self, Kind, Outcome, Supervisor};

use crate::Options;
use crate::control::{self, Place};
use crate::core::Core;
use crate::image_service::Images;
use crate::image_store::ImageStore;
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::network::{NetworkError, PodNetwork};
use crate::recover;
use crate::runtime_service::Runtime;
use crate::sandbox;
use crate::server::Socket;

/// How often the image store is rid of what no image uses.
const TIDY: Duration = Duration::from_secs(3600);
/// The form of the state directory.
const STATE: FormatVersion = FormatVersion::new("towline-runtime-state", 1);

/// Why the runtime does not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state directory is of another version.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The registry client's options.
    #[error("set up the registry client")]
    Client(#[from] OptionsError),
    /// The image store.
    #[error("open the image store")]
    Images(#[source] Failure),
    /// The pod network.
    #[error("set up the pod network")]
    Network(#[from] NetworkError),
    /// What an earlier run left could not be put right.
    #[error("take up what runs already: {0}")]
    Recover(String),
    /// Some sandboxes could not be removed.
    #[error("remove the sandboxes: {0}")]
    Remove(String),
}

/// The runtime.
#[derive(Debug)]
#[non_exhaustive]
pub struct Service;

impl Service {
    /// Starts the runtime: takes up what runs already, then listens. Needs root.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        let layout = Layout::new(&options.root, &options.state_dir);
        fs::create_dir_all_mode(&options.state_dir, 0o700)?;
        fs::create_dir_all_mode(&options.root, 0o700)?;
        STATE.check_or_write(&options.state_dir)?;
        for dir in [layout.sandboxes(), layout.containers(), layout.writable()] {
            fs::create_dir_all_mode(dir, 0o700)?;
        }
        let socket = Socket::bind(&options.socket).await?;
        let control = Socket::bind(&control::socket_beside(&options.socket)).await?;
        let images = open_images(&options, layout.images()).await?;
        let place = Place::mark(&options.root, &options.socket)?;
        let network = match &options.network {
            Some(network) => Some(PodNetwork::start(network, &options.state_dir).await?),
            None => None,
        };
        let supervisor = Supervisor::new();
        let core = Arc::new(Core::new(
            layout,
            images,
            network,
            &options,
            supervisor.clone(),
        ));
        if let Err(status) = recover::recover(&core).await {
            drop(supervisor.finish(Duration::from_secs(5)).await);
            return Err(Error::Recover(status.message().to_owned()));
        }
        let metrics = Arc::new(Metrics::default());
        serve(&core, &metrics, &options, socket);
        serve_store(&core, control);
        Ok(Handle(Arc::new(Inner {
            _place: place,
            core,
            metrics,
            socket: options.socket,
            cgroup_parent: options.cgroup_parent,
        })))
    }
}

async fn open_images(options: &Options, root: PathBuf) -> Result<ImageStore, Error> {
    let client = Client::new(options.client.clone())?;
    let (platform, unpacking) = (options.platform.clone(), options.unpacking.clone());
    let mut images = towline_images::Options::new(root, client, platform, unpacking);
    images.ceilings = options.ceilings;
    images.store = options.store;
    images.keep_blobs = options.keep_blobs;
    images.max_concurrent_layers = options.max_concurrent_layers.max(1);
    let opened = task::blocking("open-images", move || Store::open(images)).await;
    Ok(ImageStore::new(opened.map_err(Error::Images)?))
}

fn serve(core: &Arc<Core>, metrics: &Arc<Metrics>, options: &Options, socket: Socket) {
    let images = ImageServiceServer::new(Images {
        core: core.clone(),
        metrics: metrics.clone(),
        typed_reasons: options.typed_reasons,
    })
    .max_decoding_message_size(MAX_MESSAGE)
    .max_encoding_message_size(MAX_MESSAGE);
    let runtime = RuntimeServiceServer::new(Runtime { core: core.clone() })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let token = core.supervisor.token();
    let server = Server::builder()
        .add_service(images)
        .add_service(runtime)
        .serve_with_incoming_shutdown(socket.connections(), token.cancelled_owned());
    core.supervisor.spawn("cri", Kind::Critical, server);
}

/// Answers who looks after the image store, and tidies it.
fn serve_store(core: &Arc<Core>, socket: Socket) {
    let images = core.images.clone();
    let stop = core.supervisor.token();
    let answers = async move {
        let each = |connection| async {
            // Who goes away without an answer is nobody's trouble.
            let answered = match connection {
                Ok(stream) => control::serve(stream, images.images()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a question about images was not answered");
            }
        };
        let connections = socket.connections();
        let all = connections.for_each_concurrent(control::ASKED_AT_ONCE, each);
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
    };
    core.supervisor
        .spawn("images-control", Kind::Critical, answers);
    let tidy = core.images.clone().tidy(TIDY, core.supervisor.token());
    core.supervisor.spawn("tidy", Kind::Background, tidy);
}

/// How others ask and stop the runtime. Clones are the same; the last one gives the image store up, so that it can be
/// opened again.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Goes before the store that it speaks of.
    _place: Place,
    core: Arc<Core>,
    metrics: Arc<Metrics>,
    socket: PathBuf,
    cgroup_parent: String,
}

impl Handle {
    /// The socket that CRI is served on.
    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// The endpoint as a kubelet takes it: `unix:///path`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.0.socket.display())
    }

    /// The bridge's address, at which pods reach the node; `None` without a pod network.
    pub fn gateway(&self) -> Option<IpAddr> {
        let network = self.0.core.network.as_ref()?;
        Some(network.gateway().into())
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.0.metrics.text()
    }

    /// Waits until the runtime stops by itself or because it was told to, and says why.
    pub async fn stopped(&self) -> String {
        self.0.core.supervisor.stopping().await.to_string()
    }

    /// Stops serving, within `deadline`. Pods go on: their shims are taken up by the next start. A bridge that no pod
    /// uses is removed.
    pub async fn shutdown(&self, deadline: Duration) -> Result<Outcome, Error> {
        let outcome = self.0.core.supervisor.finish(deadline).await;
        let core = &self.0.core;
        if let Some(network) = &core.network
            && core.sandboxes().is_empty()
        {
            network.remove().await?;
        }
        Ok(outcome)
    }

    /// Stops serving, then ends and removes every pod and everything that was made for them: mounts, namespaces,
    /// cgroups, the bridge. Images stay. Each container has a quarter of `deadline` between TERM and KILL.
    pub async fn stop_all(&self, deadline: Duration) -> Result<Outcome, Error> {
        let core = &self.0.core;
        let began = Instant::now();
        core.supervisor.shutdown("every pod is stopped");
        // A pod that is being made, for a caller that is gone, is not among them yet.
        core.works.close();
        let making = tokio::time::timeout(deadline / 4, core.works.wait());
        if making.await.is_err() {
            tracing::warn!("pods are still being made");
        }
        let mut stops = tokio::task::JoinSet::new();
        for container in core.containers() {
            let core = core.clone();
            let stop =
                async move { crate::container::life::stop(&core, &container, deadline / 4).await };
            stops.spawn(stop);
        }
        while stops.join_next().await.is_some() {}
        let mut failed = Vec::new();
        for sandbox in core.sandboxes() {
            let id = sandbox.get().id;
            if let Err(status) = sandbox::remove(core, &id).await {
                failed.push(format!("{id}: {}", status.message()));
            }
        }
        let left = deadline
            .saturating_sub(began.elapsed())
            .max(Duration::from_secs(1));
        let outcome = core.supervisor.finish(left).await;
        if !failed.is_empty() {
            return Err(Error::Remove(failed.join("; ")));
        }
        if let Some(network) = &core.network {
            network.remove().await?;
        }
        let parent = self.0.cgroup_parent.clone();
        task::blocking("cgroup-parent", move || remove_if_empty(&parent)).await;
        Ok(outcome)
    }
}

/// Removes the cgroup that pods were made in, unless somebody else uses it.
fn remove_if_empty(name: &str) {
    let removed = Cgroup::new(name).and_then(|cgroup| {
        if cgroup.exists() && cgroup.processes()?.is_empty() {
            cgroup.remove(Duration::ZERO)
        } else {
            Ok(())
        }
    });
    if let Err(error) = removed {
        tracing::debug!(%error, "the cgroup of the pods stays");
    }
}
