//! Which addresses pods get: a free /24 of the pool, and the lowest free address in it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

impl Network {
    /// The network that holds `address`; `prefix` is at most 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self {
            address: Ipv4Addr::from(u32::from(address) & mask(prefix)),
            prefix,
        })
    }

    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    /// The address `offset` after the first.
    fn nth(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address).saturating_add(offset))
    }

    /// The address that the bridge has: the first after the network's own.
    pub fn gateway(self) -> Ipv4Addr {
        self.nth(1)
    }

    /// The first /24 of this network that overlaps none of `used`.
    pub fn free_subnet(self, used: &[Self]) -> Option<Self> {
        let count = 1u32 << 24u8.saturating_sub(self.prefix).min(16);
        (0..count)
            .map(|number| Self {
                address: self.nth(number << 8),
                prefix: 24.max(self.prefix),
            })
            .find(|candidate| !used.iter().any(|u| u.overlaps(*candidate)))
    }

    /// The lowest address for a pod that is not in `used`; never the network's own, the gateway or the broadcast address.
    pub fn free_address(self, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let size = 1u64 << (32 - u32::from(self.prefix)).min(16);
        let last = u32::try_from(size).ok()?.saturating_sub(1);
        (2..last).map(|n| self.nth(n)).find(|a| !used.contains(a))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or_default()
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Text that is not `a.b.c.d/prefix`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.88.0.0/16")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        text.split_once('/')
            .and_then(|(address, prefix)| Self::new(address.parse().ok()?, prefix.parse().ok()?))
            .ok_or_else(|| NotANetwork(text.to_owned()))
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_avoids_what_exists() {
        let pool = net("10.88.0.0/16");
        for (used, free) in [
            (&[][..], Some("10.88.0.0/24")),
            (&["192.0.2.0/24"][..], Some("10.88.0.0/24")),
            (&["10.88.0.0/24"][..], Some("10.88.1.0/24")),
            (&["10.88.0.0/23", "10.88.2.7/32"][..], Some("10.88.3.0/24")),
            (&["10.0.0.0/8"][..], None),
            (&["0.0.0.0/0"][..], None),
        ] {
            let used: Vec<_> = used.iter().map(|u| net(u)).collect();
            assert_eq!(
                pool.free_subnet(&used).map(|n| n.to_string()).as_deref(),
                free,
                "{used:?}"
            );
        }
    }

    #[test]
    fn addresses_are_lowest_first_and_end() {
        let subnet = net("10.88.3.0/24");
        let mut used = BTreeSet::new();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 3, 1));
        while let Some(address) = subnet.free_address(&used) {
            assert!(used.insert(address));
        }
        assert_eq!(used.len(), 253);
        assert_eq!(used.first(), Some(&Ipv4Addr::new(10, 88, 3, 2)));
        assert_eq!(used.last(), Some(&Ipv4Addr::new(10, 88, 3, 254)));
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        assert_eq!(net("10.88.3.9/24").to_string(), "10.88.3.0/24");
        for text in ["", "10.88.0.0", "10.88.0.0/33", "::1/64", "a/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
