//! Open connections that wait for their next request, and the tasks that drive them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use tokio::task::JoinSet;

use crate::sniff::First;
use crate::url::Origin;

/// How long an idle connection is kept: shorter than what balancers in front of registries allow.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept for one origin.
const MOST_IDLE: usize = 16;

/// An origin, and whether its addresses are restricted: a connection made under one rule never serves the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) origin: Origin,
    pub(crate) guarded: bool,
    /// Which trust and client certificate it was opened with.
    pub(crate) via: u64,
}

pub(crate) type Http1 = http1::SendRequest<Full<Bytes>>;
pub(crate) type Http2 = http2::SendRequest<Full<Bytes>>;

/// A connection that can take a request.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(Http1),
    Http2(Http2),
}

/// A connection, how it began, and whether it served before.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) sender: Sender,
    pub(crate) first: First,
    pub(crate) reused: bool,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    first: First,
    since: Instant,
}

#[derive(Debug, Default)]
struct Connections {
    idle: HashMap<Key, Vec<Idle>>,
    shared: HashMap<Key, (Http2, First)>,
}

/// Connections by origin. Dropping it closes all of them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    connections: Mutex<Connections>,
    drivers: Mutex<JoinSet<()>>,
}

impl Pool {
    /// An open connection, where there is one.
    pub(crate) fn take(&self, key: &Key) -> Option<Live> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, first)) = connections.shared.get(key) {
            if sender.is_closed() {
                connections.shared.remove(key);
            } else {
                return Some(Live {
                    sender: Sender::Http2(sender.clone()),
                    first: first.clone(),
                    reused: true,
                });
            }
        }
        let idle = connections.idle.get_mut(key)?;
        while let Some(next) = idle.pop() {
            if !next.sender.is_closed() && next.since.elapsed() < KEPT_IDLE {
                return Some(Live {
                    sender: Sender::Http1(next.sender),
                    first: next.first,
                    reused: true,
                });
            }
        }
        connections.idle.remove(key);
        None
    }

    /// Requests that the connections which are open and wait can take at once.
    pub(crate) fn room(&self, key: &Key) -> usize {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let shared = connections.shared.get(key);
        if shared.is_some_and(|(sender, _)| !sender.is_closed()) {
            return usize::MAX;
        }
        let idle = connections.idle.get(key).into_iter().flatten();
        idle.filter(|one| !one.sender.is_closed() && one.since.elapsed() < KEPT_IDLE)
            .count()
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn give_back(&self, key: Key, sender: Http1, first: First) {
        if sender.is_closed() {
            return;
        }
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.idle.retain(|_, idle| {
            idle.retain(|one| !one.sender.is_closed() && one.since.elapsed() < KEPT_IDLE);
            !idle.is_empty()
        });
        let idle = connections.idle.entry(key).or_default();
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                sender,
                first,
                since: Instant::now(),
            });
        }
    }

    /// Shares an HTTP/2 connection.
    pub(crate) fn share(&self, key: Key, sender: Http2, first: First) {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shared
            .insert(key, (sender, first));
    }

    /// Forgets a shared connection that turned out to be dead.
    pub(crate) fn forget(&self, key: &Key) {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shared
            .remove(key);
    }

    /// Drives a connection until it ends; its end is seen by whoever sends on it.
    pub(crate) fn drive(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(connection);
    }
}
