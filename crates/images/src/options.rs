//! What is told to the images of a node, and to one pull.

use std::path::PathBuf;

use tokio::sync::watch;
use towline_distribution::{Client, Trace};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};
use towline_sys::task::CancellationToken;

use crate::{Ceilings, Progress, Unpacking};

/// What [`crate::Images`] is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's directory; created when it is not there.
    pub root: PathBuf,
    /// The registry client.
    pub client: Client,
    /// Platform of the node.
    pub platform: Platform,
    /// Layers of one pull that are unpacked at the same time; at least 1. So many large ones come at the same time, or up to four times as many
    /// small ones.
    pub max_concurrent_layers: usize,
    /// Connections over which one large layer comes at the same time, at most, where more than one brings more; 1 never asks for parts.
    pub connections_per_layer: usize,
    /// What a layer may cost.
    pub ceilings: Ceilings,
    /// Unpack as somebody who is not root of the machine, in a user namespace or without one: device nodes are left out, opaque directories
    /// are marked for overlay mounts with `userxattr`.
    pub unprivileged: bool,
    /// An owner that cannot be set ends the pull; else it is left.
    pub exact_owners: bool,
    /// Where layers are unpacked: a decision that is made on purpose.
    pub unpacking: Unpacking,
    /// The store's own rules.
    pub store: towline_store::Options,
    /// Compressed layers stay in the store beside what is unpacked of them, until their image is removed.
    pub keep_blobs: bool,
    /// Bytes a second that all downloads together take at most.
    pub rate: Option<std::num::NonZeroU64>,
}

impl Options {
    /// Options with the defaults: three layers at a time, rights as this process has them. Whoever has but one user and group (an ordinary
    /// user, root of a namespace with one id) sets no owners; root of a namespace with more sets those that it maps.
    pub fn new(
        root: impl Into<PathBuf>,
        client: Client,
        platform: Platform,
        unpacking: Unpacking,
    ) -> Self {
        Self {
            root: root.into(),
            client,
            platform,
            max_concurrent_layers: 3,
            connections_per_layer: 4,
            ceilings: Ceilings::default(),
            unprivileged: !towline_sys::root::of_the_machine(),
            exact_owners: towline_sys::root::of_many_owners(),
            unpacking,
            store: towline_store::Options::default(),
            keep_blobs: false,
            rate: None,
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
