//! A path that loses large packets without a word, as a tunnel does whose size nobody told the hosts: seen from both ends the same.
//!
//! What a kernel would drop is not passed on here. How large packets would be is what both sides agreed on when they connected, so that a
//! client that keeps its segments small gets through as on a real path.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes of payload that get through in one packet: an MTU of 576.
const WIDTH: usize = 536;

/// A narrow path that stands; it ends when dropped.
#[derive(Debug)]
pub struct Narrow {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Narrow {
    /// Listens on `listen`; the path leads to `to`.
    pub async fn start(listen: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            // An error (no more files) ends the taking only.
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(async move {
                    // A client that goes away is no matter of the path's.
                    let _ended = carry(stream, to).await;
                });
            }
            std::future::pending::<()>().await;
        });
        Ok(Self {
            address,
            _task: task,
        })
    }

    /// Where it begins.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

async fn carry(stream: TcpStream, to: SocketAddr) -> io::Result<()> {
    let segment = socket2::SockRef::from(&stream).tcp_mss()?;
    let fits = usize::try_from(segment).is_ok_and(|segment| segment <= WIDTH);
    let upstream = TcpStream::connect(to).await?;
    let (from_client, to_client) = stream.into_split();
    let (from_server, to_server) = upstream.into_split();
    let up = pass(from_client, to_server, fits);
    let down = pass(from_server, to_client, fits);
    tokio::try_join!(up, down).map(drop)
}

/// Carries what fits. What does not is lost, and so is what is sent again and all that comes after it.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    fits: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if length > WIDTH && !fits {
            std::future::pending::<()>().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn small_segments_get_through_and_large_ones_do_not() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let behind = TcpListener::bind(any).await.unwrap();
        let to = behind.local_addr().unwrap();
        let mut served = JoinSet::new();
        served.spawn(async move {
            while let Ok((mut stream, _)) = behind.accept().await {
                stream.write_all(&[7; 4000]).await.unwrap();
            }
        });
        let narrow = Narrow::start(any, to).await.unwrap();
        for (segment, through) in [(None, false), (Some(536), true)] {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(segment) = segment {
                socket2::SockRef::from(&socket)
                    .set_tcp_mss(segment)
                    .unwrap();
            }
            let mut stream = socket.connect(narrow.local_addr()).await.unwrap();
            let mut all = vec![0; 4000];
            let patience = if through { 30_000 } else { 300 };
            let read = stream.read_exact(&mut all);
            let read = tokio::time::timeout(Duration::from_millis(patience), read).await;
            assert_eq!(read.is_ok(), through, "{segment:?}");
        }
    }
}
