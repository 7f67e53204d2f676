//! How often a client may ask: so many requests a second, and so many at once after it was quiet.
//!
//! A client is an address, or with IPv6 the network of 64 bits that a site gives its machines: who it says it is does not matter here, so
//! that guessing passwords is bounded too.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clients that are told apart; more share one allowance.
const CLIENTS: usize = 10_000;

/// How often a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, for as long as it likes.
    pub per_second: u32,
    /// Requests at once, after it was quiet.
    pub burst: u32,
}

/// What clients have asked lately.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<IpAddr, Bucket>>);

/// What a client may still ask, as of a moment.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// As of now.
    fn filled(self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * f64::from(rate.per_second)).min(f64::from(rate.burst.max(1)))
    }
}

impl Rates {
    /// Lets a request through, or says how long the client should wait.
    pub(crate) fn admit(&self, client: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = f64::from(rate.burst.max(1));
        let mut client = network(client);
        if all.len() >= CLIENTS && !all.contains_key(&client) {
            // Whoever was quiet for long is as good as unknown.
            all.retain(|_, bucket| bucket.filled(rate, now) < most);
            if all.len() >= CLIENTS {
                client = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        let full = Bucket {
            left: most,
            at: now,
        };
        let bucket = all.entry(client).or_insert(full);
        let left = bucket.filled(rate, now);
        *bucket = Bucket { left, at: now };
        if left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - left) / f64::from(rate.per_second.max(1)),
        ))
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 2,
        burst: 3,
    };

    #[test]
    fn a_client_has_its_burst_and_then_its_rate_and_others_have_their_own() {
        let rates = Rates::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.admit(one, RATE, now), Ok(()));
        }
        assert_eq!(rates.admit(one, RATE, now), Err(Duration::from_millis(500)));
        assert_eq!(rates.admit(other, RATE, now), Ok(()));
        let later = now + Duration::from_millis(500);
        assert_eq!(rates.admit(one, RATE, later), Ok(()));
        assert!(rates.admit(one, RATE, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            assert_eq!(rates.admit(one, RATE, much_later), Ok(()));
        }
        assert!(rates.admit(one, RATE, much_later).is_err());
    }

    #[test]
    fn a_site_is_one_client_and_the_number_of_clients_is_bounded() {
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:0:0:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), IpAddr::from([192, 0, 2, 1]));
        let rates = Rates::default();
        let now = Instant::now();
        for number in 0..u32::try_from(2 * CLIENTS).unwrap() {
            rates
                .admit(IpAddr::from(number.to_be_bytes()), RATE, now)
                .ok();
        }
        assert!(rates.0.lock().unwrap().len() <= CLIENTS + 1);
    }
}
