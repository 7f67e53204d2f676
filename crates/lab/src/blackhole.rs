//! Addresses that lead nowhere.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// An address of 127.0.0.1 on which nothing listens: connections are refused. Another program may take the port later.
pub async fn refused() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()
}

/// An address that takes connections and never says a word; it ends when dropped.
#[derive(Debug)]
pub struct Silent {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Silent {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Listens on this address.
    pub async fn at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut held = Vec::new();
            // An error (no more files) only ends the taking; connections then wait in the queue, as silent as before.
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
            std::future::pending::<()>().await;
            drop(held);
        });
        Ok(Self {
            address,
            _task: task,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// An address that drops connection attempts, as a firewall does: its queue is full. It ends when dropped.
#[derive(Debug)]
pub struct Filtered {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Filtered {
    /// Listens on a free port of 127.0.0.1 and fills the queue.
    pub async fn start() -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Listens on this IPv4 address and fills the queue.
    pub async fn at(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Whoever listens there next must not wait for the connections of the queue to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let address = listener.local_addr()?;
        let mut queue = Vec::new();
        // The kernel takes one connection more than the backlog; the one after that already gets no answer.
        let patience = std::time::Duration::from_millis(200);
        while queue.len() < 16 {
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(stream) => queue.push(stream?),
                Err(_full) => break,
            }
        }
        Ok(Self {
            address,
            _listener: listener,
            _queue: queue,
        })
    }

    /// Where nothing answers.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn each_leads_nowhere_in_its_way() {
        let error = TcpStream::connect(refused().await.unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

        let silent = Silent::start().await.unwrap();
        let mut stream = TcpStream::connect(silent.local_addr()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");

        let filtered = Filtered::start().await.unwrap();
        let attempt = TcpStream::connect(filtered.local_addr());
        let attempt = tokio::time::timeout(Duration::from_millis(300), attempt).await;
        assert!(attempt.is_err(), "{attempt:?}");
    }
}
