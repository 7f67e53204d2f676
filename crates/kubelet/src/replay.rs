//! Pulls replayed on the node for callers of its endpoint. Who makes the agent hands in what replays: the agent itself speaks the
//! Kubernetes API and CRI, and to no registry.

use std::sync::Arc;

use futures::future::BoxFuture;
use towline_keyring::Candidate;

/// Replays pulls as the node's runtime makes them: from its network, by its mirrors, proxies and authorities.
#[derive(Clone)]
pub struct Replay(Arc<dyn Fn(Wanted) -> BoxFuture<'static, serde_json::Value> + Send + Sync>);

/// One pull to replay.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The image as the pod names it.
    pub image: String,
    /// The logins in the order in which the agent tries them.
    pub candidates: Vec<Candidate>,
}

impl Replay {
    /// What replays must end within [`Replay::TIME`], and its report must hold no value of a credential.
    pub fn new(
        replay: impl Fn(Wanted) -> BoxFuture<'static, serde_json::Value> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(replay))
    }

    /// The longest that a replay may take: an API server in between waits 30 s.
    pub const TIME: std::time::Duration = std::time::Duration::from_secs(25);

    pub(crate) fn run(&self, wanted: Wanted) -> BoxFuture<'static, serde_json::Value> {
        (self.0)(wanted)
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replay")
    }
}
