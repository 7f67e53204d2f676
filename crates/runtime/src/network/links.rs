//! Links, addresses and routes of one network namespace, through rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, Stats64};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    new_connection,
};
use tokio::task::JoinHandle;
use towline_sys::task;

use super::subnet::Network;

/// Why links could not be changed: what was attempted, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{0}")]
    Refused(String, #[source] rtnetlink::Error),
    /// A link that has to be there is not.
    #[error("link {0} does not exist")]
    Missing(String),
}

/// A netlink connection to the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

trait Refused<T> {
    fn at(self, what: impl FnOnce() -> String) -> Result<T, LinkError>;
}

impl<T> Refused<T> for Result<T, rtnetlink::Error> {
    fn at(self, what: impl FnOnce() -> String) -> Result<T, LinkError> {
        self.map_err(|source| LinkError::Refused(what(), source))
    }
}

impl Links {
    /// Connects in the calling thread's namespace; must be called inside an async runtime.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = new_connection().map_err(LinkError::Socket)?;
        Ok(Self {
            handle,
            connection: task::spawn("netlink", connection),
        })
    }

    /// The index of a link; `None` where there is none of this name.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>, LinkError> {
        let found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute()
            .try_next()
            .await;
        match found {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc_enodev() => Ok(None),
            Err(e) => Err(e).at(|| format!("look up link {name}")),
        }
    }

    /// As [`index`](Self::index); that it does not exist is an error.
    pub(crate) async fn need(&self, name: &str) -> Result<u32, LinkError> {
        self.index(name)
            .await?
            .ok_or_else(|| LinkError::Missing(name.to_owned()))
    }

    /// Adds a bridge that is up.
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), LinkError> {
        let message = LinkBridge::new(name).build();
        let added = self.handle.link().add(message).execute().await;
        added.at(|| format!("add bridge {name}"))
    }

    /// Adds a pair of links.
    pub(crate) async fn add_veth(&self, name: &str, peer: &str) -> Result<(), LinkError> {
        let message = LinkVeth::new(name, peer).build();
        let added = self.handle.link().add(message).execute().await;
        added.at(|| format!("add veth {name} with peer {peer}"))
    }

    async fn change(
        &self,
        index: u32,
        what: &str,
        how: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), LinkError> {
        let message = how(LinkUnspec::new_with_index(index)).build();
        let changed = self.handle.link().change(message).execute().await;
        changed.at(|| format!("{what} (link {index})"))
    }

    /// Sets a link up.
    pub(crate) async fn up(&self, index: u32) -> Result<(), LinkError> {
        self.change(index, "set up", LinkMessageBuilder::up).await
    }

    /// Gives a link another name.
    pub(crate) async fn rename(&self, index: u32, name: &str) -> Result<(), LinkError> {
        self.change(index, &format!("rename to {name}"), |m| m.name(name))
            .await
    }

    /// Plugs a link into a bridge.
    pub(crate) async fn plug(&self, index: u32, bridge: u32) -> Result<(), LinkError> {
        self.change(index, "plug into the bridge", |m| m.controller(bridge))
            .await
    }

    /// Moves a link into the namespace of which `file` is the handle.
    pub(crate) async fn move_to(&self, index: u32, file: &std::fs::File) -> Result<(), LinkError> {
        let fd = file.as_raw_fd();
        self.change(index, "move into a network namespace", |m| {
            m.setns_by_fd(fd)
        })
        .await
    }

    /// Removes a link; that it is not there is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        match self.handle.link().del(index).execute().await {
            // The other end went with its namespace in between.
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc_enodev() => Ok(()),
            removed => removed.at(|| format!("remove link {name}")),
        }
    }

    /// Adds an address.
    pub(crate) async fn add_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), LinkError> {
        let request = self
            .handle
            .address()
            .add(index, IpAddr::V4(address), prefix);
        let added = request.execute().await;
        added.at(|| format!("add address {address}/{prefix} (link {index})"))
    }

    /// Adds the default route.
    pub(crate) async fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build();
        let added = self.handle.route().add(route).execute().await;
        added.at(|| format!("add the default route through {gateway}"))
    }

    /// All IPv4 networks that links or routes here know, without the default route.
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, LinkError> {
        let mut networks = Vec::new();
        let mut addresses = self.handle.address().get().execute();
        let read = || "list addresses".to_owned();
        while let Some(message) = addresses.try_next().await.at(read)? {
            networks.extend(message.attributes.iter().filter_map(|a| match a {
                AddressAttribute::Address(IpAddr::V4(address)) => {
                    Network::new(*address, message.header.prefix_len)
                }
                _ => None,
            }));
        }
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        let read = || "list routes".to_owned();
        while let Some(message) = routes.try_next().await.at(read)? {
            let prefix = message.header.destination_prefix_length;
            networks.extend(message.attributes.iter().filter_map(|a| match a {
                RouteAttribute::Destination(RouteAddress::Inet(address)) if prefix > 0 => {
                    Network::new(*address, prefix)
                }
                _ => None,
            }));
        }
        Ok(networks)
    }

    /// The addresses of a link.
    pub(crate) async fn addresses(&self, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let mut found = Vec::new();
        let mut addresses = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let read = || format!("list addresses (link {index})");
        while let Some(message) = addresses.try_next().await.at(read)? {
            if message.header.family != AddressFamily::Inet {
                continue;
            }
            found.extend(message.attributes.iter().filter_map(|a| match a {
                AddressAttribute::Address(IpAddr::V4(address)) => {
                    Some((*address, message.header.prefix_len))
                }
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Counters of a link.
    pub(crate) async fn counters(&self, name: &str) -> Result<Option<Stats64>, LinkError> {
        let link = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute()
            .try_next()
            .await
            .at(|| format!("read the counters of link {name}"))?;
        Ok(link.and_then(|link| {
            link.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::Stats64(stats) => Some(stats),
                _ => None,
            })
        }))
    }
}

/// ENODEV: what the kernel answers about a link that does not exist.
fn libc_enodev() -> i32 {
    rustix::io::Errno::NODEV.raw_os_error()
}
