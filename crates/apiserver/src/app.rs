//! What every handler shares.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::kubelet_client::KubeletClient;
use crate::metrics::Metrics;
use crate::pki::Authority;
use crate::storage::Store;

/// Bounds on what clients may ask.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's headers.
    pub headers: usize,
    /// Connections at one time.
    pub connections: usize,
    /// Watches at one time.
    pub watches: usize,
    /// Objects in one answer to a list; more come with `continue`.
    pub list: usize,
    /// Requests in work at one time, watches and logs not counted.
    pub requests: usize,
    /// The time between bookmarks of a watch.
    pub bookmark: Duration,
    /// How long events stay after their last write.
    pub event_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 3 << 20,
            headers: 64 << 10,
            connections: 2048,
            watches: 4096,
            list: 10_000,
            requests: 512,
            bookmark: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// The server's state.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) authority: Authority,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) kubelets: KubeletClient,
    /// Cancelled when the server stops: ends watches and followed logs.
    pub(crate) stopping: CancellationToken,
    pub(crate) watches: std::sync::Arc<Semaphore>,
    pub(crate) requests: Semaphore,
}
