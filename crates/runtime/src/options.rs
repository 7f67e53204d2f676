//! What the runtime is told.

use std::ffi::OsString;
use std::path::PathBuf;

use towline_oci::Platform;

use crate::network::NetworkOptions;

/// What the runtime is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Images, layers and writable layers. On a file system that overlay mounts can use.
    pub root: PathBuf,
    /// Sandboxes, containers and the shims' sockets: what need not survive a reboot, such as `/run/towline`.
    pub state_dir: PathBuf,
    /// The unix socket that CRI is served on, mode 0600.
    pub socket: PathBuf,
    /// The registry client.
    pub client: towline_distribution::Options,
    /// The pod network; `None` leaves only pods with the host's network.
    pub network: Option<NetworkOptions>,
    /// The program, and arguments before the sandbox's directory, that start a shim: `["/usr/bin/towline", "shim"]`.
    pub shim: Vec<OsString>,
    /// Where layers are unpacked.
    pub unpacking: towline_images::Unpacking,
    /// The cgroup below which pods go for which the caller names none, such as `/towline`.
    pub cgroup_parent: String,
    /// The platform to pull for.
    pub platform: Platform,
    /// Layers of one image fetched at the same time, at least 1.
    pub max_concurrent_layers: usize,
    /// What a layer may cost.
    pub ceilings: towline_images::Ceilings,
    /// The image store's own rules.
    pub store: towline_images::StoreOptions,
    /// Compressed layers stay beside what is unpacked of them, until their image is removed.
    pub keep_blobs: bool,
    /// Most processes of a container, where set.
    pub pids_limit: Option<i64>,
    /// Starts the text of some failures with the prefixes by which a kubelet shows `RegistryUnavailable` and
    /// `SignatureValidationFailed`. Off, the reason is `ErrImagePull`, as on a node with containerd.
    pub typed_reasons: bool,
}

impl Options {
    /// Options with defaults for everything but the places and the programs.
    pub fn new(
        root: PathBuf,
        state_dir: PathBuf,
        socket: PathBuf,
        shim: Vec<OsString>,
        unpacking: towline_images::Unpacking,
    ) -> Self {
        Self {
            root,
            state_dir,
            socket,
            client: towline_distribution::Options::default(),
            network: Some(NetworkOptions::default()),
            shim,
            unpacking,
            cgroup_parent: "/towline".to_owned(),
            platform: Platform::host(),
            max_concurrent_layers: 3,
            ceilings: towline_images::Ceilings::default(),
            store: towline_images::StoreOptions::default(),
            keep_blobs: false,
            pids_limit: None,
            typed_reasons: false,
        }
    }
}
