//! What is told to the images of a node, and to one pull.

use std::path::PathBuf;

use tokio::sync::watch;
use towline_distribution::{Client, Trace};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};
use towline_sys::task::CancellationToken;

use crate::Progress;

/// What [`crate::Images`] is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's directory; created when it is not there.
    pub root: PathBuf,
    /// The registry client.
    pub client: Client,
    /// Platform of the node.
    pub platform: Platform,
    /// Layers of one pull that are downloaded and unpacked at the same time; at least 1.
    pub max_concurrent_layers: usize,
    /// Connections over which one large layer comes at the same time, at most, where more than one brings more; 1 never asks for parts.
    pub connections_per_layer: usize,
    /// What a layer may cost.
    pub ceilings: Ceilings,
    /// Unpack as somebody who is not root: owners that cannot be set are left, device nodes are left out, opaque directories are marked
    /// for overlay mounts with `userxattr`.
    pub unprivileged: bool,
    /// The store's own rules.
    pub store: towline_store::Options,
    /// Bytes a second that all downloads together take at most.
    pub rate: Option<std::num::NonZeroU64>,
}

impl Options {
    /// Options with the defaults: three layers at a time, privileged when the process is root.
    pub fn new(root: impl Into<PathBuf>, client: Client, platform: Platform) -> Self {
        Self {
            root: root.into(),
            client,
            platform,
            max_concurrent_layers: 3,
            connections_per_layer: 4,
            ceilings: Ceilings::default(),
            unprivileged: !rustix::process::geteuid().is_root(),
            store: towline_store::Options::default(),
            rate: None,
        }
    }
}

/// The most that a layer may cost. A layer that asks for more ends the pull with an error that names the ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Compressed bytes of a whole image as its manifest declares them.
    pub image_bytes: u64,
    /// Layers of an image; overlayfs stacks no more than 500.
    pub layers: usize,
    /// Files, directories, links and whiteouts of a layer.
    pub entries: u64,
    /// Bytes of a layer after decompression.
    pub layer_bytes: u64,
    /// Bytes after decompression for each compressed byte. Counts from [`Ceilings::ratio_floor`] on.
    pub ratio: u64,
    /// Bytes after decompression from which the ratio counts.
    pub ratio_floor: u64,
    /// Bytes of a path.
    pub path_bytes: usize,
    /// Bytes of one name in a path; Linux file systems hold 255.
    pub name_bytes: usize,
    /// Names in a path.
    pub path_depth: usize,
    /// Bytes of the extended headers of one entry.
    pub header_bytes: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Memory of a zstd window as a power of two.
    pub zstd_window_log: u32,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            image_bytes: 256 << 30,
            layers: 500,
            entries: 4_000_000,
            layer_bytes: 256 << 30,
            ratio: 400,
            ratio_floor: 1 << 30,
            path_bytes: 4095,
            name_bytes: 255,
            path_depth: 512,
            header_bytes: 1 << 20,
            xattrs: 256,
            zstd_window_log: 27,
        }
    }
}

/// One pull.
#[derive(Debug)]
pub struct PullRequest {
    /// What to pull. Without tag and digest it means `latest`.
    pub image: Reference,
    /// What to offer to the registry.
    pub credential: Credential,
    /// Another platform than the node's.
    pub platform: Option<Platform>,
    /// Ids for the registry's log. Waiters that join a running pull share its first one's.
    pub trace: Trace,
    /// Where to report.
    pub progress: Option<watch::Sender<Progress>>,
    /// Ends this wait. The download goes on while others wait for it, and stops with the last.
    pub cancel: CancellationToken,
}

impl PullRequest {
    /// A pull of `image` with `credential` that nobody watches or cancels.
    pub fn new(image: Reference, credential: Credential) -> Self {
        Self {
            image,
            credential,
            platform: None,
            trace: Trace::default(),
            progress: None,
            cancel: CancellationToken::new(),
        }
    }
}
