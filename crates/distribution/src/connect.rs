//! A TCP connection to the first address that answers, and why none did.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long one address may keep the next one waiting.
const STAGGER: Duration = Duration::from_millis(250);

/// Why an address was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectFault {
    /// Anything else that the system says.
    Other(ErrorKind),
    /// No route, or a firewall says so.
    Unreachable,
    /// Silence.
    Timeout,
    /// The connection was reset while it was opened.
    Reset,
    /// Nobody listens.
    Refused,
}

impl std::fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Unreachable => f.write_str("no route to host"),
            Self::Reset => f.write_str("connection reset"),
            Self::Other(kind) => write!(f, "{kind}"),
        }
    }
}

/// One address that was tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried {
    pub(crate) address: SocketAddr,
    pub(crate) fault: Option<ConnectFault>,
    pub(crate) took: Duration,
}

/// Every address failed: the fault that says most, and all of them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.text())]
pub(crate) struct ConnectError {
    pub(crate) fault: ConnectFault,
    pub(crate) tried: Vec<(SocketAddr, ConnectFault)>,
}

impl ConnectError {
    fn text(&self) -> String {
        let mut text = String::new();
        for (at, (address, fault)) in self.tried.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            text = format!("{text}{separator}{address}: {fault}");
        }
        text
    }

    /// Whether only IPv6 addresses were there and none has a route.
    pub(crate) fn lacks_ipv6(&self) -> bool {
        self.fault == ConnectFault::Unreachable
            && self.tried.iter().all(|(address, _)| address.is_ipv6())
    }
}

/// Tries the addresses in order, each one joined by the next after 250 ms, until one answers.
pub(crate) async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
    mut seen: impl FnMut(Tried),
) -> Result<TcpStream, ConnectError> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut waiting = addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port));
    let mut running = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push(one(address, deadline));
        } else if running.is_empty() {
            break;
        }
        let stagger = if waiting.len() == 0 { limit } else { STAGGER };
        let Ok(Some((address, took, result))) = tokio::time::timeout(stagger, running.next()).await
        else {
            continue;
        };
        let fault = result.as_ref().err().copied();
        seen(Tried {
            address,
            fault,
            took,
        });
        match result {
            Ok(stream) => return Ok(stream),
            Err(fault) => failed.push((address, fault)),
        }
    }
    Err(ConnectError {
        fault: failed
            .iter()
            .map(|(_, fault)| *fault)
            .max()
            .unwrap_or(ConnectFault::Unreachable),
        tried: failed,
    })
}

async fn one(
    address: SocketAddr,
    deadline: tokio::time::Instant,
) -> (SocketAddr, Duration, Result<TcpStream, ConnectFault>) {
    let start = Instant::now();
    let result = match tokio::time::timeout_at(deadline, TcpStream::connect(address)).await {
        Err(_) => Err(ConnectFault::Timeout),
        Ok(Ok(stream)) => {
            // Small requests must not wait for the peer's delayed acknowledgement; without the option it is only slower.
            stream.set_nodelay(true).ok();
            Ok(stream)
        }
        Ok(Err(error)) => Err(of_kind(error.kind())),
    };
    (address, start.elapsed(), result)
}

fn of_kind(kind: ErrorKind) -> ConnectFault {
    match kind {
        ErrorKind::ConnectionRefused => ConnectFault::Refused,
        ErrorKind::TimedOut => ConnectFault::Timeout,
        // Without an address of the family on any link the kernel finds no source address: that is no route, too.
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => ConnectFault::Unreachable,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => ConnectFault::Reset,
        kind => ConnectFault::Other(kind),
    }
}
