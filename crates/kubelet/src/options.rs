//! What the node agent is told, and what can keep it from starting.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use towline_keyring::Secret;

use crate::clock::Clock;
use crate::replay::Replay;

/// How the API server is reached.
#[derive(Clone)]
pub enum Kube {
    /// A configuration.
    Config(Box<kube::Config>),
    /// A kubeconfig file.
    Kubeconfig(PathBuf),
    /// A client that is already there.
    Client(kube::Client),
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(config) => write!(f, "Config({})", config.cluster_url),
            Self::Kubeconfig(path) => write!(f, "Kubeconfig({})", path.display()),
            Self::Client(_) => f.write_str("Client"),
        }
    }
}

/// How the runtime is reached.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// `unix:///path/of.sock`.
    Endpoint(String),
    /// A channel that is already there.
    Channel(tonic::transport::Channel),
}

/// The endpoint for logs.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// Certificate chain (PEM) and its key (PEM). Without it the agent makes its own.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// The authority (PEM) of client certificates. What their users may is asked of the API server. Without it only tokens are taken.
    pub client_ca: Option<Vec<u8>>,
}

/// When images that no container uses are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageGc {
    /// Per cent of the images' file system from which on they are; 100 for never.
    pub high_percent: u8,
    /// Per cent at which it is enough.
    pub low_percent: u8,
    /// What is here for less than this stays.
    pub min_age: Duration,
    /// What nobody has used for longer than this goes, however much room there is; `None` for never.
    pub max_age: Option<Duration>,
}

impl Default for ImageGc {
    /// Kubernetes' 85 and 80 per cent, two minutes, no greatest age.
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
            max_age: None,
        }
    }
}

/// What the node agent is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The API server.
    pub kube: Kube,
    /// The node's name.
    pub node_name: String,
    /// The runtime.
    pub runtime: Runtime,
    /// Where volumes of pods lie; made if it is missing. Its path must be the same for the runtime.
    pub root: PathBuf,
    /// Where logs of pods lie; `<root>/logs` where it is not given.
    pub log_root: Option<PathBuf>,
    /// Where the endpoint for logs listens.
    pub listen: SocketAddr,
    /// Its certificate and its clients.
    pub serving: Serving,
    /// The node's address, for itself and for pods on its network.
    pub node_ip: IpAddr,
    /// Host and port at which pods reach the API server (`KUBERNETES_SERVICE_HOST` and `_PORT`).
    pub api_address: Option<(String, u16)>,
    /// Labels of the node besides those that every node has.
    pub node_labels: BTreeMap<String, String>,
    /// Nothing that Kubernetes does not do: no annotation, no condition, no metric by cause, no early attempts, and a pull
    /// goes on when its pod is deleted.
    pub kubernetes_exact: bool,
    /// How many pulls run at a time; one after another where it is `Some(1)`, which is the default, all where it is `None`.
    pub max_parallel_image_pulls: Option<u32>,
    /// Starts of pulls a second; 0 is no limit.
    pub registry_pull_qps: f64,
    /// Starts of pulls in one moment.
    pub registry_burst: u32,
    /// When unused images are removed.
    pub image_gc: ImageGc,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Servers of the cluster's DNS; pods get the host's where there are none.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The resolver configuration that pods get.
    pub resolv_conf: PathBuf,
    /// The group in the cgroup tree below which `kubepods` is made.
    pub cgroup_root: String,
    /// The time of day.
    pub clock: Clock,
    /// What replays pulls as the node's runtime makes them, for callers of the endpoint; `None` where nobody can.
    pub replay: Option<Replay>,
}

impl Options {
    /// Kubernetes' defaults for a node of this name.
    pub fn new(
        kube: Kube,
        runtime: Runtime,
        node_name: impl Into<String>,
        root: impl Into<PathBuf>,
    ) -> Self {
        Self {
            kube,
            node_name: node_name.into(),
            runtime,
            root: root.into(),
            log_root: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            serving: Serving::default(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            api_address: None,
            node_labels: BTreeMap::new(),
            kubernetes_exact: false,
            max_parallel_image_pulls: Some(1),
            registry_pull_qps: 5.0,
            registry_burst: 10,
            image_gc: ImageGc::default(),
            max_pods: 110,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_root: "/".to_owned(),
            clock: Clock::system(),
            replay: None,
        }
    }
}

/// Why the node agent does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("read the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No client can be made for the API server.
    #[error("make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The runtime cannot be reached.
    #[error("connect to the runtime")]
    Runtime(#[source] towline_cri::client::ConnectError),
    /// The runtime does not say what it is.
    #[error("ask the runtime for its version: {0}")]
    Version(String),
    /// The endpoint cannot listen.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The endpoint's certificate cannot be used.
    #[error("{0}")]
    Tls(String),
    /// A directory cannot be made or used.
    #[error("prepare the root directory")]
    Root(#[source] towline_sys::fs::FsError),
    /// The root was written by a newer version, or by another program.
    #[error("check the version of the root directory: {0}")]
    Format(String),
}
