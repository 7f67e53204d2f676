//! A client that shows what really came over the wire.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What came: the bytes until the end, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) end: io::Result<()>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.text
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .unwrap_or_default()
    }

    pub(crate) fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await.map(drop);
    Answer {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        end,
    }
}
