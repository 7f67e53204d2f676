//! A client that costs little: one connection, one request after the other, answers read and thrown away.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;
/// The longest head of an answer.
const HEAD: usize = 16 << 10;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection.
pub(super) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Header lines as they came.
    head: String,
    /// Bytes of the body.
    pub(super) length: u64,
    /// The body, if it was to be kept.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            address,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends a request without a body and reads the answer; its body is kept if that is asked for.
    pub(super) fn ask(&mut self, method: &str, path: &str, keep: bool) -> anyhow::Result<Answer> {
        self.send(method, path, &[], &[], keep)
    }

    /// Sends a request with a body in one piece.
    pub(super) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        keep: bool,
    ) -> anyhow::Result<Answer> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/vnd.oci.image.manifest.v1+json, */*\r\n",
            self.address
        );
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if !matches!(method, "GET" | "HEAD") {
            head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.answer(method == "HEAD", keep)
            .with_context(|| format!("{method} {path}"))
    }

    fn answer(&mut self, bodiless: bool, keep: bool) -> anyhow::Result<Answer> {
        let mut filled = 0;
        let end = loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            filled += read;
            if let Some(at) = find(&self.buffer[..filled]) {
                break at;
            }
            if read == 0 || filled > HEAD {
                bail!("no head of an answer");
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let mut words = head.split_ascii_whitespace();
        let status = words.nth(1).and_then(|word| word.parse().ok());
        let mut answer = Answer {
            status: status.context("no status")?,
            head,
            length: 0,
            body: Vec::new(),
        };
        if bodiless || answer.status == 204 || answer.status == 304 {
            return Ok(answer);
        }
        let stated = answer.header("content-length").map(str::to_owned);
        let first = self.buffer[end..filled].to_vec();
        match stated {
            Some(stated) => self.sized(&mut answer, stated.parse()?, &first, keep)?,
            None => self.chunked(&mut answer, first)?,
        }
        Ok(answer)
    }

    fn sized(
        &mut self,
        answer: &mut Answer,
        length: u64,
        first: &[u8],
        keep: bool,
    ) -> anyhow::Result<()> {
        answer.length = length;
        if keep {
            answer.body.extend_from_slice(first);
        }
        let mut left = length.saturating_sub(first.len() as u64);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let read = self.stream.read(&mut self.buffer[..most])?;
            if read == 0 {
                bail!("the body ends early");
            }
            if keep {
                answer.body.extend_from_slice(&self.buffer[..read]);
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// A body in chunks; always kept, it is never a large one.
    fn chunked(&mut self, answer: &mut Answer, mut raw: Vec<u8>) -> anyhow::Result<()> {
        loop {
            if let Some(body) = unchunk(&raw) {
                answer.length = body.len() as u64;
                answer.body = body;
                return Ok(());
            }
            let read = self.stream.read(&mut self.buffer)?;
            if read == 0 {
                bail!("the chunks end early");
            }
            raw.extend_from_slice(&self.buffer[..read]);
        }
    }
}

/// Where the head ends.
fn find(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

/// The content of chunks, once the last one is there.
fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = raw.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&raw[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let chunk = raw.get(line + 2..line + 2 + size)?;
        body.extend_from_slice(chunk);
        raw = raw.get(line + 4 + size..)?;
        if size == 0 {
            return Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_heads() {
        assert_eq!(unchunk(b"3\r\nabc\r\n0\r\n\r\n"), Some(b"abc".to_vec()));
        assert_eq!(unchunk(b"3\r\nabc\r\n0\r\n"), None);
        assert_eq!(unchunk(b"3\r\nab"), None);
        assert_eq!(find(b"HTTP/1.1 200 OK\r\n\r\nx"), Some(19));
    }
}
