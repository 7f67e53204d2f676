//! The sockets of the name server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::answer::{Answer, Reply, Table, reply};

/// How long an upstream is waited for.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(5);
/// How long an idle TCP connection is kept.
const TCP_PATIENCE: Duration = Duration::from_secs(10);
/// How many questions are remembered for [`Server::asked`].
const REMEMBERED: usize = 10_000;
/// Ports tried until one is free for both UDP and TCP.
const PORT_TRIES: usize = 50;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What a name server is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names and their answers.
    pub table: Table,
    /// Where other names are asked; without it they do not exist.
    pub upstream: Option<SocketAddr>,
    /// Where to listen; a free port of 127.0.0.1 by default.
    pub listen: Option<SocketAddr>,
}

/// A question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The name, in lower case, without the final dot.
    pub name: String,
    /// The record type, such as `A`.
    pub kind: String,
    /// How it came.
    pub transport: Transport,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    asked: Mutex<Vec<Asked>>,
    upstream: Option<SocketAddr>,
}

/// A running name server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server; both sockets are bound when this returns.
    pub async fn start(options: Options) -> io::Result<Self> {
        let (udp, tcp) = bind(options.listen).await?;
        let address = udp.local_addr()?;
        let shared = Arc::new(Shared {
            table: Mutex::new(options.table),
            asked: Mutex::default(),
            upstream: options.upstream,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&shared)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    /// Where the server listens, UDP and TCP.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Changes the answer for a name.
    pub fn set(&self, name: &str, answer: Answer) {
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .set(name, answer);
    }

    /// Takes a name out of the table.
    pub fn remove(&self, name: &str) {
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// The questions so far, oldest first; at most ten thousand.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn bind(listen: Option<SocketAddr>) -> io::Result<(UdpSocket, TcpListener)> {
    if let Some(address) = listen {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        return Ok((udp, tcp));
    }
    let mut last = io::Error::other("no port tried");
    for _ in 0..PORT_TRIES {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Shared {
    /// The reply to the bytes of a question; `None` for bytes that are no question.
    fn decide(&self, bytes: &[u8], transport: Transport) -> Option<Reply> {
        let query = Message::from_vec(bytes).ok()?;
        let mut before = 0;
        if let Some(question) = query.queries.first() {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let name = question.name().to_ascii();
            let asking = Asked {
                name: name.trim_end_matches('.').to_ascii_lowercase(),
                kind: question.query_type().to_string(),
                transport,
            };
            let same = |one: &&Asked| one.name == asking.name && one.kind == asking.kind;
            before = asked.iter().filter(same).count();
            if asked.len() < REMEMBERED {
                asked.push(asking);
            }
        }
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let upstream = self.upstream.is_some();
        Some(reply(&table, &query, (transport, before), upstream))
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    // An error here is an ICMP answer to an earlier datagram; the socket stays good.
    loop {
        while forwards.try_join_next().is_some() {}
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        match shared.decide(&buffer[..length], Transport::Udp) {
            Some(Reply::Send(bytes)) => drop(socket.send_to(&bytes, peer).await),
            Some(Reply::Forward) => {
                let (socket, question) = (Arc::clone(&socket), buffer[..length].to_vec());
                let upstream = shared.upstream;
                forwards.spawn(async move {
                    if let Some(Ok(answer)) = forward_udp(upstream, &question).await {
                        drop(socket.send_to(&answer, peer).await);
                    }
                });
            }
            Some(Reply::Silence) | None => {}
        }
    }
}

async fn forward_udp(upstream: Option<SocketAddr>, question: &[u8]) -> Option<io::Result<Vec<u8>>> {
    let upstream = upstream?;
    let exchange = async {
        let local: SocketAddr = if upstream.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(upstream).await?;
        socket.send(question).await?;
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok(buffer)
    };
    tokio::time::timeout(UPSTREAM_PATIENCE, exchange).await.ok()
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // The peer going away ends its connection, which is all there is to do about it.
            drop(tokio::time::timeout(TCP_PATIENCE, connection(stream, shared)).await);
        });
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let question = read_framed(&mut stream).await?;
        let answer = match shared.decide(&question, Transport::Tcp) {
            Some(Reply::Send(bytes)) => bytes,
            Some(Reply::Forward) => {
                let upstream = shared
                    .upstream
                    .ok_or_else(|| io::Error::other("no upstream"))?;
                let mut other = TcpStream::connect(upstream).await?;
                write_framed(&mut other, &question).await?;
                read_framed(&mut other).await?
            }
            Some(Reply::Silence) | None => return Ok(()),
        };
        write_framed(&mut stream, &answer).await?;
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(bytes).await
}
