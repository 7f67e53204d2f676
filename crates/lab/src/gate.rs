//! Proxies between a node and its registries, each of which lets connections through, or does not, in its own way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Longest head of a request that is read, in bytes.
const MOST: usize = 16 * 1024;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a proxy does with `CONNECT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Manner {
    /// It connects whoever asks.
    #[default]
    LetsThrough,
    /// It answers 407.
    WantsLogin,
    /// It answers 403.
    Refuses,
    /// It answers 502: it cannot reach what is asked for.
    CannotReach,
    /// It is something else, which greets first.
    SomethingElse,
}

/// A proxy that runs; it ends when dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Gate {
    /// Listens on `listen`; whatever host is asked for, connections lead to `to`.
    pub async fn start(listen: SocketAddr, manner: Manner, to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            // An error (no more files) ends the taking only.
            while let Ok((stream, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(async move {
                    // A client that goes away is no matter of the proxy's.
                    let _ended = serve(stream, manner, to).await;
                });
            }
            std::future::pending::<()>().await;
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

async fn serve(mut stream: TcpStream, manner: Manner, to: SocketAddr) -> io::Result<()> {
    if manner == Manner::SomethingElse {
        return stream.write_all(b"SSH-2.0-Lab\r\n").await;
    }
    let asked = tokio::time::timeout(PATIENCE, head(&mut stream)).await??;
    let answer = match manner {
        _ if !asked.starts_with("CONNECT ") => "405 Method Not Allowed",
        Manner::WantsLogin => {
            "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"lab\""
        }
        Manner::Refuses => "403 Forbidden",
        Manner::CannotReach => "502 Bad Gateway",
        Manner::LetsThrough | Manner::SomethingElse => {
            let mut upstream = TcpStream::connect(to).await?;
            stream
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await?;
            return Ok(());
        }
    };
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// The head of a request.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < MOST {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn answer(manner: Manner, request: &str) -> String {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let behind = TcpListener::bind(any).await.unwrap();
        let to = behind.local_addr().unwrap();
        let echo = async {
            let (mut stream, _) = behind.accept().await.unwrap();
            stream.write_all(b"from behind").await.unwrap();
        };
        let gate = Gate::start(any, manner, to).await.unwrap();
        let ask = async {
            let mut stream = TcpStream::connect(gate.local_addr()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            said
        };
        tokio::select! {
            said = ask => said,
            () = async { echo.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn each_has_its_manner() {
        let connect = "CONNECT r.test:443 HTTP/1.1\r\nHost: r.test:443\r\n\r\n";
        for (manner, begins, ends) in [
            (Manner::LetsThrough, "HTTP/1.1 200 ", "from behind"),
            (Manner::WantsLogin, "HTTP/1.1 407 ", "\r\n\r\n"),
            (Manner::Refuses, "HTTP/1.1 403 ", "\r\n\r\n"),
            (Manner::CannotReach, "HTTP/1.1 502 ", "\r\n\r\n"),
        ] {
            let said = answer(manner, connect).await;
            assert!(said.starts_with(begins) && said.ends_with(ends), "{said}");
        }
        let said = answer(Manner::LetsThrough, "GET / HTTP/1.1\r\n\r\n").await;
        assert!(said.starts_with("HTTP/1.1 405 "), "{said}");
    }
}
