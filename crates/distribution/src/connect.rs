//! A TCP connection to the first address that answers, and why none did.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream};

/// How long one address may keep the next one waiting.
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of the internet far from each other, whose routes tell whether there is a way out by IPv6 at all: of root name servers.
const INTERNET: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 0x2, 0x30),
    Ipv6Addr::new(0x2801, 0x1b8, 0x10, 0, 0, 0, 0, 0xb),
];

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

    /// Whether no address of the internet has a route by IPv6. The kernel is asked for its routes; nothing is sent.
    pub(crate) fn has_no_ipv6() -> bool {
        let Ok(socket) = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
            return true;
        };
        INTERNET.iter().all(|address| {
            let connected = socket.connect((*address, 443));
            connected.is_err_and(|error| of_kind(error.kind()) == ConnectFault::Unreachable)
        })
    }

    /// Whether only IPv6 addresses were there and none has a route.
    pub(crate) fn lacks_ipv6(&self) -> bool {
        self.fault == ConnectFault::Unreachable
            && self.tried.iter().all(|(address, _)| address.is_ipv6())
    }
}

/// Tries the addresses in order, each one joined by the next after 250 ms, until one answers. `segment` is the most bytes of a TCP
/// segment, where the system is not to decide.
pub(crate) async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
    segment: Option<u32>,
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
            running.push(one(address, deadline, segment));
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
    segment: Option<u32>,
) -> (SocketAddr, Duration, Result<TcpStream, ConnectFault>) {
    let start = Instant::now();
    let result = match tokio::time::timeout_at(deadline, open(address, segment)).await {
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

/// Opens a connection; the peer is told to send no larger segments either.
async fn open(address: SocketAddr, segment: Option<u32>) -> std::io::Result<TcpStream> {
    let Some(segment) = segment else {
        return TcpStream::connect(address).await;
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket2::SockRef::from(&socket).set_tcp_mss(segment)?;
    socket.connect(address).await
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
