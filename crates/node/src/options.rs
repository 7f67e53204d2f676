//! What a node is told.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use towline_distribution::{Retries, Timeouts};
use towline_registry::access::Access;

/// What a node is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the node keeps what it has. Short enough that a socket below it fits (about 80 characters).
    pub data_dir: PathBuf,
    /// A second place for the admin's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the node in the cluster.
    pub node_name: String,
    /// Where the API server listens; port 0 takes a free one. It also listens on the gateway of the pods' network.
    pub api_listen: SocketAddr,
    /// Where the registry listens.
    pub registry_listen: SocketAddr,
    /// Where the kubelet's endpoint listens.
    pub kubelet_listen: SocketAddr,
    /// Who may do what in the registry.
    pub registry_access: Access,
    /// Name servers for registry names; empty for the system's.
    pub resolver: Vec<SocketAddr>,
    /// Certificate authorities trusted for registries, beside the system's; PEM.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// Where mirrors of registries are configured.
    pub endpoints: towline_distribution::Sources,
    /// Proxies between this node and registries.
    pub proxies: towline_distribution::Proxies,
    /// Hosts of token services that get logins although they lie outside the registry's own domain.
    pub trusted_realms: Vec<String>,
    /// What a layer may cost.
    pub ceilings: towline_runtime::Ceilings,
    /// The image store's own rules.
    pub store: towline_runtime::StoreOptions,
    /// Compressed layers stay beside what is unpacked of them, until their image is removed.
    pub keep_blobs: bool,
    /// How long registries are waited for.
    pub registry_timeouts: Timeouts,
    /// How often a request to a registry is sent again.
    pub registry_retries: Retries,
    /// How many pulls run at a time; all where it is `None`.
    pub max_parallel_image_pulls: Option<u32>,
    /// Starts of pulls a second; 0 is no limit.
    pub registry_pull_qps: f64,
    /// Starts of pulls in one moment.
    pub registry_burst: u32,
    /// When images that no container uses are removed.
    pub image_gc: towline_kubelet::ImageGc,
    /// The program, and its first arguments, that is a pod's shim.
    pub shim: Vec<OsString>,
    /// Where layers are unpacked.
    pub unpacking: towline_runtime::Unpacking,
    /// The runtime of this node, where it is not our own.
    pub foreign: Option<Foreign>,
    /// Add nothing to what Kubernetes itself writes.
    pub kubernetes_exact: bool,
}

/// A container runtime that somebody else starts and stops.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Its CRI socket.
    pub socket: PathBuf,
    /// The cgroup below which its pods belong.
    pub cgroup: String,
}

impl Options {
    /// A node in this folder with the usual ports, whose registry is open to this machine. The shim is this program itself, and so is the helper
    /// that unpacks (`unpack-layers`), whatever takes the place of its file meanwhile.
    pub fn new(data_dir: &Path) -> Self {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("towline"));
        Self {
            data_dir: data_dir.to_owned(),
            kubeconfig: None,
            node_name: host_name(),
            api_listen: local(6443),
            registry_listen: local(5000),
            kubelet_listen: local(10250),
            registry_access: Access::open(),
            resolver: Vec::new(),
            extra_ca_pem: Vec::new(),
            endpoints: towline_distribution::Sources::default(),
            proxies: towline_distribution::Proxies::default(),
            trusted_realms: Vec::new(),
            ceilings: towline_runtime::Ceilings::default(),
            store: towline_runtime::StoreOptions::default(),
            keep_blobs: false,
            registry_timeouts: Timeouts::default(),
            registry_retries: Retries::default(),
            max_parallel_image_pulls: Some(1),
            registry_pull_qps: 5.0,
            registry_burst: 10,
            image_gc: towline_kubelet::ImageGc::default(),
            shim: vec![program.into_os_string(), OsString::from("shim")],
            unpacking: towline_runtime::Unpacking::by(
                "/proc/self/exe",
                [OsString::from("unpack-layers")],
            ),
            foreign: None,
            kubernetes_exact: false,
        }
    }

    /// The registry client's options that follow from these.
    pub(crate) fn client(&self) -> towline_distribution::Options {
        let mut options = towline_distribution::Options::default();
        if !self.resolver.is_empty() {
            options.resolver = towline_distribution::Resolver::Servers(self.resolver.clone());
        }
        options.endpoints.clone_from(&self.endpoints);
        options.proxies.clone_from(&self.proxies);
        options.trusted_realms.clone_from(&self.trusted_realms);
        options.extra_ca_pem.clone_from(&self.extra_ca_pem);
        options.timeouts = self.registry_timeouts;
        options.retries = self.registry_retries;
        options
    }

    /// A bridge of this node's own, so that several nodes on one machine do not meet. At most 15 characters.
    pub(crate) fn bridge(&self) -> String {
        let digest = towline_oci::Digest::of(self.data_dir.as_os_str().as_encoded_bytes());
        format!("towline{}", &digest.hex()[..6])
    }
}

/// The host's name as a node's name: lower case, characters that Kubernetes allows.
fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c))
        .collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() {
        "node".to_owned()
    } else {
        name.to_owned()
    }
}
