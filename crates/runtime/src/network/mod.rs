//! The pod network: one bridge with a /24, one pair of links for each pod.

mod links;
mod subnet;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towline_sys::fs::FsError;
use towline_sys::ns::NetNs;
use towline_sys::task;

pub use links::LinkError;
use links::Links;
pub use subnet::{Network, NotANetwork};

/// The name of the link inside a pod.
const INSIDE: &str = "eth0";

/// How the pod network is made.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Name of the bridge, at most 15 characters. It is made when missing, and then removed at the end.
    pub bridge: String,
    /// The pool of which a free /24 is taken.
    pub pool: Network,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bridge: "towline0".to_owned(),
            pool: Network::new(Ipv4Addr::new(10, 88, 0, 0), 16)
                .unwrap_or_else(|| unreachable!("a prefix of 16 bits")),
        }
    }
}

/// Why the pod network, or a pod's part of it, could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A link, address or route.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A namespace or a file.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// No thread or runtime to enter the namespace with.
    #[error("enter the pod's network namespace")]
    Enter(#[source] std::io::Error),
    /// Every /24 of the pool overlaps an address or a route of this machine.
    #[error("no free /24 network in {0}: all of them overlap addresses or routes of this machine")]
    PoolUsed(Network),
    /// Every address of the pods' network is taken.
    #[error("no free address in {0}")]
    AddressesUsed(Network),
    /// The bridge that is there has no IPv4 address that pods could use as gateway.
    #[error("the bridge {0} exists and has no IPv4 address")]
    BridgeWithoutAddress(String),
}

/// What is remembered of the bridge across restarts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    version: u32,
    bridge: String,
    subnet: Network,
    /// Whether this program made the bridge.
    ours: bool,
}

/// The bridge and its network.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    file: PathBuf,
    bridge: String,
    subnet: Network,
    gateway: Ipv4Addr,
    made: bool,
}

impl PodNetwork {
    /// Finds the bridge or makes it; `state_dir` remembers which.
    pub(crate) async fn start(
        options: &NetworkOptions,
        state_dir: &Path,
    ) -> Result<Self, NetworkError> {
        let file = state_dir.join("network.json");
        let links = Links::open()?;
        let before = read_made(&file)?.filter(|b| b.bridge == options.bridge);
        if let Some(index) = links.index(&options.bridge).await? {
            let (gateway, prefix) = links
                .addresses(index)
                .await?
                .into_iter()
                .next()
                .ok_or_else(|| NetworkError::BridgeWithoutAddress(options.bridge.clone()))?;
            let subnet = Network::new(gateway, prefix)
                .ok_or_else(|| NetworkError::BridgeWithoutAddress(options.bridge.clone()))?;
            return Ok(Self {
                file,
                bridge: options.bridge.clone(),
                subnet,
                gateway,
                made: before.is_some_and(|b| b.ours),
            });
        }
        let used = links.networks().await?;
        let subnet = before
            .map(|b| b.subnet)
            .filter(|s| !used.iter().any(|u| u.overlaps(*s)))
            .or_else(|| options.pool.free_subnet(&used))
            .ok_or(NetworkError::PoolUsed(options.pool))?;
        let network = Self {
            file,
            bridge: options.bridge.clone(),
            gateway: subnet.gateway(),
            subnet,
            made: true,
        };
        network.remember()?;
        links.add_bridge(&network.bridge).await?;
        let index = links.need(&network.bridge).await?;
        links
            .add_address(index, network.gateway, subnet.prefix())
            .await?;
        Ok(network)
    }

    fn remember(&self) -> Result<(), NetworkError> {
        let made = Made {
            version: 1,
            bridge: self.bridge.clone(),
            subnet: self.subnet,
            ours: self.made,
        };
        let text = serde_json::to_vec(&made).unwrap_or_default();
        Ok(towline_sys::fs::write_atomic(&self.file, &text)?)
    }

    /// The bridge's address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// A free address, `used` being those of the sandboxes that live.
    pub(crate) fn free_address(&self, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
        let mut used = used.clone();
        used.insert(self.gateway);
        self.subnet
            .free_address(&used)
            .ok_or(NetworkError::AddressesUsed(self.subnet))
    }

    /// Connects a namespace with the bridge: loopback up, `eth0` with `address` and a default route.
    pub(crate) async fn connect(
        &self,
        netns: &NetNs,
        host_link: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let links = Links::open()?;
        let bridge = links.need(&self.bridge).await?;
        let peer = format!("p{}", host_link.get(1..).unwrap_or("eer"));
        links.add_veth(host_link, &peer).await?;
        let file = netns.file()?;
        links.move_to(links.need(&peer).await?, &file).await?;
        let outside = links.need(host_link).await?;
        links.plug(outside, bridge).await?;
        links.up(outside).await?;
        let (prefix, gateway) = (self.subnet.prefix(), self.gateway);
        inside(netns, move || async move {
            let links = Links::open()?;
            links.up(links.need("lo").await?).await?;
            let index = links.need(&peer).await?;
            links.rename(index, INSIDE).await?;
            links.add_address(index, address, prefix).await?;
            links.up(index).await?;
            links.add_default_route(gateway).await
        })
        .await
    }

    /// Removes a pod's pair of links.
    pub(crate) async fn disconnect(&self, host_link: &str) -> Result<(), NetworkError> {
        Ok(Links::open()?.remove(host_link).await?)
    }

    /// Removes the bridge where this program made it.
    pub(crate) async fn remove(&self) -> Result<(), NetworkError> {
        if self.made {
            Links::open()?.remove(&self.bridge).await?;
        }
        Ok(towline_sys::fs::remove_file(&self.file)?)
    }
}

/// Bytes and errors received and sent by a pod, from the outer end of its link: what the pod receives is sent there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) rx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

/// The counters of a pod; `None` where its link is gone.
pub(crate) async fn counters(host_link: &str) -> Option<Counters> {
    let stats = Links::open().ok()?.counters(host_link).await.ok()??;
    Some(Counters {
        rx_bytes: stats.tx_bytes,
        rx_errors: stats.tx_errors,
        tx_bytes: stats.rx_bytes,
        tx_errors: stats.rx_errors,
    })
}

/// Runs netlink work inside a namespace, on a thread of its own.
async fn inside<F, W>(netns: &NetNs, work: W) -> Result<(), NetworkError>
where
    F: Future<Output = Result<(), LinkError>>,
    W: FnOnce() -> F + Send + 'static,
{
    let netns = netns.clone();
    task::blocking("pod-network", move || {
        netns.run(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(NetworkError::Enter)?
                .block_on(work())
                .map_err(NetworkError::Link)
        })?
    })
    .await
}

fn read_made(file: &Path) -> Result<Option<Made>, NetworkError> {
    let bytes = towline_sys::fs::read_optional(file, 64 * 1024)?;
    Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
}
