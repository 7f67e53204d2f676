//! A pull-through cache of our own in front of a scenario's host.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use towline_registry::{CacheOptions, Options, Service, Upstream};

use super::LabError;

/// How the image of a scenario names the cache.
pub(super) const NAME: &str = "{cache}";
/// How long it remembers what its upstream could not do: a lesson does not wait for more.
const MEMORY: Duration = Duration::from_millis(200);
/// How long its requests have to end.
const STOP: Duration = Duration::from_secs(5);

/// A cache that runs.
pub(super) struct Cache {
    handle: towline_registry::Handle,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cache").field(&self.address()).finish()
    }
}

impl Cache {
    /// Starts one that keeps its copies in this folder; `upstream` speaks plain HTTP.
    pub(super) async fn start(folder: &Path, upstream: &str) -> Result<Self, LabError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            LabError::Node(crate::Error::component("cache")(error))
        };
        let upstream = Upstream::parse(&format!("*=http://{upstream}"));
        let upstream = upstream.map_err(|error| failed(error.into()))?;
        let mut options = Options::new(folder.to_owned());
        options.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        options.cache = CacheOptions {
            upstreams: vec![upstream],
            absent_ttl: MEMORY,
            failure_ttl: MEMORY,
            ..CacheOptions::default()
        };
        let handle = Service::start(options).await;
        let handle = handle.map_err(|error| failed(error.into()))?;
        Ok(Self { handle })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    pub(super) async fn stop(self) {
        if !self.handle.shutdown(STOP).await {
            tracing::warn!("requests to a cache of the lab did not end");
        }
    }
}
