//! Opening a connection: straight to the endpoint, or through a proxy.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connect;
use crate::facts::Fact;
use crate::guard;
use crate::pool::{Key, Live};
use crate::proxy::{Proxy, ProxyFault};
use crate::sniff::Sniffed;
use crate::transport::{SendFault, Transport, Via};
use crate::url::{Origin, Scheme};
use crate::watch::{Watch, micros};

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, straight or through whatever is in between.
pub(crate) type Wire = Box<dyn Stream>;

impl Transport {
    /// Looks up, connects and shakes hands.
    pub(crate) async fn open(
        &self,
        key: &Key,
        via: &Via,
        watch: &Watch,
    ) -> Result<Live, SendFault> {
        let origin = &key.origin;
        let (stream, local): (Wire, bool) = match self.proxies.of(origin) {
            None => {
                let stream = self.tcp(origin, origin, key.guarded, via, watch).await?;
                let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
                (Box::new(stream), local)
            }
            Some(proxy) => {
                let opened = match proxy {
                    Ok(proxy) => self.through(proxy, origin, via, watch).await,
                    Err(why) => Err(ProxyFault::Invalid(why.clone())),
                };
                let shown =
                    proxy.map_or_else(|_| "that is configured".to_owned(), ToString::to_string);
                watch.tell(|| Fact::Proxy {
                    endpoint: origin.to_string(),
                    proxy: shown.clone(),
                    error: opened.as_ref().err().map(ToString::to_string),
                });
                let wire = opened.map_err(|fault| SendFault::Proxy {
                    proxy: shown,
                    fault,
                })?;
                // Who answers sits behind the proxy: not this machine, as far as anybody can tell.
                (wire, false)
            }
        };
        let stream = Sniffed::new(stream, local);
        let first = stream.first();
        match origin.scheme {
            Scheme::Http => self.http1(stream, first).await,
            Scheme::Https => self.secure(key, via, stream, first, watch).await,
        }
    }

    /// A TCP connection to `to`, for the sake of `origin`.
    async fn tcp(
        &self,
        to: &Origin,
        origin: &Origin,
        guarded: bool,
        via: &Via,
        watch: &Watch,
    ) -> Result<TcpStream, SendFault> {
        let start = Instant::now();
        let lookup = self.names.look_up(&to.host).await;
        let found = lookup.result.as_ref().ok();
        watch.tell(|| Fact::Dns {
            host: to.host.clone(),
            asked: lookup.asked.clone(),
            ipv4: found.map(|found| found.ipv4.clone()).unwrap_or_default(),
            ipv6: found.map(|found| found.ipv6.clone()).unwrap_or_default(),
            error: lookup.result.as_ref().err().map(ToString::to_string),
            micros: micros(start.elapsed()),
        });
        let mut addresses = lookup
            .result
            .map_err(|fault| SendFault::Dns {
                fault,
                asked: lookup.asked,
            })?
            .in_order();
        if guarded {
            let forbidden = addresses.iter().copied().find(|a| guard::is_forbidden(*a));
            addresses.retain(|address| !guard::is_forbidden(*address));
            if let (true, Some(address)) = (addresses.is_empty(), forbidden) {
                return Err(SendFault::Forbidden(address));
            }
        }
        let endpoint = origin.to_string();
        let limit = via.connect.unwrap_or(self.timeouts.connect);
        let stream = connect::connect(&addresses, to.port, limit, self.segment, |tried| {
            watch.tell(|| Fact::Connect {
                endpoint: endpoint.clone(),
                address: tried.address.to_string(),
                error: tried.fault.map(|fault| fault.to_string()),
                micros: micros(tried.took),
            });
        })
        .await?;
        Ok(stream)
    }

    /// A connection to the proxy; for TLS one that the proxy has led on to the endpoint.
    async fn through(
        &self,
        proxy: &Proxy,
        origin: &Origin,
        via: &Via,
        watch: &Watch,
    ) -> Result<Wire, ProxyFault> {
        let unreached = |fault| ProxyFault::Unreached(Box::new(fault));
        let stream = self
            .tcp(&proxy.origin, origin, false, via, watch)
            .await
            .map_err(unreached)?;
        let mut wire: Wire = Box::new(stream);
        if proxy.origin.scheme == Scheme::Https {
            let handshake = self
                .tls
                .handshake_http1(
                    &proxy.origin.host,
                    Sniffed::new(wire, false),
                    self.timeouts.tls,
                )
                .await;
            let stream = handshake
                .result
                .map_err(SendFault::Tls)
                .map_err(unreached)?;
            wire = Box::new(stream);
        }
        if origin.scheme == Scheme::Http {
            return Ok(wire);
        }
        let limit = via.connect.unwrap_or(self.timeouts.connect);
        match tokio::time::timeout(limit, self.tunnel(&mut wire, proxy, origin)).await {
            Ok(ended) => ended.map(|()| wire),
            Err(_) => Err(ProxyFault::NotAProxy(format!(
                "it did not answer CONNECT within {} s",
                limit.as_secs_f32()
            ))),
        }
    }

    async fn tunnel(
        &self,
        wire: &mut Wire,
        proxy: &Proxy,
        origin: &Origin,
    ) -> Result<(), ProxyFault> {
        let host = if origin.host.contains(':') {
            format!("[{}]:{}", origin.host, origin.port)
        } else {
            format!("{}:{}", origin.host, origin.port)
        };
        let mut request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        request.extend_from_slice(b"User-Agent: ");
        request.extend_from_slice(self.user_agent.as_bytes());
        if let Some(login) = &proxy.login {
            request.extend_from_slice(b"\r\nProxy-Authorization: ");
            request.extend_from_slice(login.as_bytes());
        }
        request.extend_from_slice(b"\r\n\r\n");
        let broken = |error: std::io::Error| ProxyFault::NotAProxy(error.kind().to_string());
        wire.write_all(&request).await.map_err(broken)?;
        wire.flush().await.map_err(broken)?;
        let mut head = Vec::new();
        // Byte by byte: what follows the headers is the endpoint's own.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= self.limits.headers {
                return Err(ProxyFault::NotAProxy("its headers do not end".to_owned()));
            }
            head.push(wire.read_u8().await.map_err(broken)?);
        }
        let line = String::from_utf8_lossy(&head);
        let mut words = line.lines().next().unwrap_or_default().splitn(3, ' ');
        let status = match (words.next(), words.next().map(str::parse::<u16>)) {
            (Some(version), Some(Ok(status))) if version.starts_with("HTTP/1.") => status,
            _ => return Err(ProxyFault::NotAProxy("its answer is not HTTP".to_owned())),
        };
        if (200..300).contains(&status) {
            return Ok(());
        }
        Err(ProxyFault::Answered {
            status,
            reason: crate::said::clean(words.next().unwrap_or_default()),
            with_login: proxy.login.is_some(),
        })
    }
}
