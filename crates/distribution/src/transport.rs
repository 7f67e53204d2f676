//! One request to one URL: find or open a connection, send, wait for the headers. No retry, no redirect, no authentication.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::body::Body;
use crate::connect::ConnectError;
use crate::dial::Wire;
use crate::dns::{DnsFault, Names};
use crate::facts::Fact;
use crate::options::{Limits, Options, OptionsError, Timeouts};
use crate::pool::{Key, Live, Pool, Sender};
use crate::proxy::{ProxyFault, Rules};
use crate::sniff::{First, Sniffed};
use crate::tls::{Tls, TlsFault, Trust, late_alert};
use crate::url::{Origin, Scheme, Url};
use crate::watch::{Watch, micros};

/// A request to send.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether loopback and link-local addresses are refused: the URL came from a server.
    pub(crate) guarded: bool,
    /// What the request carries, in words.
    pub(crate) credential: String,
    /// How the connection is made.
    pub(crate) via: Via,
}

/// How a connection is made, where an endpoint is configured differently from the client as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Via {
    /// Two with the same number are the same; 0 is the client's own way.
    number: u64,
    pub(crate) tls: Option<Arc<Tls>>,
    /// How long opening it may take.
    pub(crate) connect: Option<Duration>,
    /// How long the answer's headers may take, at most.
    pub(crate) headers: Option<Duration>,
    /// How long the other side may be silent, before its answer and within it; nobody who was silent so long is asked again.
    pub(crate) silence: Option<Duration>,
}

impl PartialEq for Via {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Via {}

/// The answer to a request: its body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) url: Url,
    /// Whether this machine itself answered.
    pub(crate) local: bool,
}

impl Answer {
    /// A header as text: printable ASCII only, at most 512 characters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| value.len() <= 512)
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SendFault {
    #[error("{fault}")]
    Dns { fault: DnsFault, asked: Vec<String> },
    #[error("the proxy {proxy}: {fault}")]
    Proxy { proxy: String, fault: ProxyFault },
    #[error("address {0} is not one that a server may send this client to")]
    Forbidden(std::net::IpAddr),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Tls(TlsFault),
    #[error("the peer answered plain HTTP with TLS")]
    TlsOnPlain,
    #[error("no answer within {} s of the request", .0.as_secs_f32())]
    HeadersTimeout(Duration),
    #[error("the connection was closed before an answer")]
    Closed,
    #[error("the connection was reset before an answer")]
    Reset,
    #[error("the HTTP/2 stream broke before an answer: {0}")]
    Stream(String),
    #[error("the headers of the answer are larger than what is read")]
    HeadersTooLarge,
    #[error("the answer is not HTTP: {0}")]
    NotHttp(String),
    #[error("the request was not sent: {0}")]
    Other(String),
}

/// Most ways that are kept: configuration files that change all the time must not fill the memory.
const MOST_VIAS: usize = 256;
static NEXT_VIA: AtomicU64 = AtomicU64::new(1);

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) names: Names,
    pub(crate) proxies: Rules,
    pub(crate) tls: Tls,
    options: Options,
    vias: Mutex<HashMap<Trust, Via>>,
    pool: Arc<Pool>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) segment: Option<u32>,
    pub(crate) user_agent: HeaderValue,
}

impl Transport {
    pub(crate) fn new(options: &Options) -> Result<Self, OptionsError> {
        Ok(Self {
            proxies: Rules::new(&options.proxies),
            names: Names::new(options.resolver.clone(), options.timeouts.dns),
            tls: Tls::new(options, &Trust::default())?,
            options: options.clone(),
            vias: Mutex::default(),
            pool: Arc::new(Pool::default()),
            timeouts: options.timeouts,
            limits: options.limits,
            segment: options.max_segment,
            user_agent: HeaderValue::from_str(&options.user_agent)
                .map_err(|_| OptionsError::UserAgent(options.user_agent.clone()))?,
        })
    }

    /// Sends one request and waits for the headers of its answer.
    pub(crate) async fn send(&self, call: &Call, watch: &Watch) -> Result<Answer, SendFault> {
        let key = Key {
            origin: call.url.origin.clone(),
            guarded: call.guarded,
            via: call.via.number,
        };
        if let Some(live) = self.pool.take(&key) {
            match self.exchange(live, &key, call, watch).await {
                // The server closed an idle connection just as it was used again: that says nothing about the request.
                Err(SendFault::Closed | SendFault::Reset | SendFault::Stream(_)) => {
                    self.pool.forget(&key);
                }
                ended => return ended,
            }
        }
        let live = self.open(&key, &call.via, watch).await?;
        self.exchange(live, &key, call, watch).await
    }

    /// Looks up, connects and shakes hands; keeps the connection for the first request.
    pub(crate) async fn reach(
        &self,
        origin: &Origin,
        via: &Via,
        watch: &Watch,
    ) -> Result<(), SendFault> {
        let key = Key {
            origin: origin.clone(),
            guarded: false,
            via: via.number,
        };
        let live = self.open(&key, via, watch).await?;
        if let Sender::Http1(sender) = live.sender {
            self.pool.give_back(key, sender, live.first);
        }
        Ok(())
    }

    /// Lets something go on that nobody waits for. It ends with the transport.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.pool.drive(work);
    }

    /// Requests that the connections which are open and wait can take at once.
    pub(crate) fn room(&self, origin: &Origin, via: &Via) -> usize {
        self.pool.room(&Key {
            origin: origin.clone(),
            guarded: false,
            via: via.number,
        })
    }

    /// The way to a place with its own trust. Ways are kept, so that connections made one way serve again.
    pub(crate) fn via(&self, trust: &Trust, connect: Option<Duration>) -> Result<Via, String> {
        if trust.is_default() {
            return Ok(Via {
                connect,
                ..Via::default()
            });
        }
        let mut vias = self.vias.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(via) = vias.get(trust) {
            return Ok(Via {
                connect,
                ..via.clone()
            });
        }
        let tls = Tls::new(&self.options, trust).map_err(|error| error.to_string())?;
        if vias.len() >= MOST_VIAS {
            vias.clear();
        }
        let via = Via {
            number: NEXT_VIA.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            tls: Some(Arc::new(tls)),
            connect,
            headers: None,
            silence: None,
        };
        vias.insert(trust.clone(), via.clone());
        Ok(via)
    }

    pub(crate) async fn secure(
        &self,
        key: &Key,
        via: &Via,
        stream: Sniffed<Wire>,
        first: First,
        watch: &Watch,
    ) -> Result<Live, SendFault> {
        let start = Instant::now();
        let handshake = via
            .tls
            .as_deref()
            .unwrap_or(&self.tls)
            .handshake(&key.origin.host, stream, self.timeouts.tls)
            .await;
        let session = handshake
            .result
            .as_ref()
            .ok()
            .map(|stream| stream.get_ref().1);
        let alpn = session
            .and_then(|session| session.alpn_protocol())
            .map(|name| String::from_utf8_lossy(name).into_owned());
        watch.tell(|| Fact::Tls {
            endpoint: key.origin.to_string(),
            version: session
                .and_then(|session| session.protocol_version())
                .map(|version| format!("{version:?}")),
            suite: session
                .and_then(|session| session.negotiated_cipher_suite())
                .map(|suite| format!("{:?}", suite.suite())),
            alpn: alpn.clone(),
            certificate: handshake.certificate.clone(),
            error: handshake.result.as_ref().err().map(ToString::to_string),
            micros: micros(start.elapsed()),
        });
        let stream = handshake.result.map_err(SendFault::Tls)?;
        if alpn.as_deref() != Some("h2") {
            return self.http1(stream, first).await;
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_header_list_size(u32::try_from(self.limits.headers).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| of_hyper(&error, &first))?;
        self.pool.drive(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        });
        self.pool.share(key.clone(), sender.clone(), first.clone());
        Ok(Live {
            sender: Sender::Http2(sender),
            first,
            reused: false,
        })
    }

    pub(crate) async fn http1<S>(&self, stream: S, first: First) -> Result<Live, SendFault>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_header_size(self.limits.headers);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| of_hyper(&error, &first))?;
        self.pool.drive(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/1 connection ended");
            }
        });
        Ok(Live {
            sender: Sender::Http1(sender),
            first,
            reused: false,
        })
    }

    async fn exchange(
        &self,
        live: Live,
        key: &Key,
        call: &Call,
        watch: &Watch,
    ) -> Result<Answer, SendFault> {
        let start = Instant::now();
        let within =
            |limit: Duration, most: Option<Duration>| most.map_or(limit, |most| limit.min(most));
        let headers = within(
            within(self.timeouts.headers, call.via.headers),
            call.via.silence,
        );
        let limit = headers + upload_allowance(call.body.len());
        let Live {
            sender,
            first,
            reused,
        } = live;
        let ended = match sender {
            Sender::Http1(mut sender) => {
                let request = self.request(call, false);
                let sent = tokio::time::timeout(limit, async {
                    sender.ready().await?;
                    sender.send_request(request).await
                });
                settle(sent.await, limit, &first).map(|answer| (answer, Some(sender)))
            }
            Sender::Http2(mut sender) => {
                let request = self.request(call, true);
                let sent = tokio::time::timeout(limit, async {
                    sender.ready().await?;
                    sender.send_request(request).await
                });
                match settle(sent.await, limit, &first) {
                    Err(SendFault::Other(words)) => Err(SendFault::Stream(words)),
                    settled => settled.map(|answer| (answer, None)),
                }
            }
        };
        let quiet = reused
            && matches!(
                ended,
                Err(SendFault::Closed | SendFault::Reset | SendFault::Stream(_))
            );
        if !quiet {
            tell(call, &ended, watch, start);
        }
        let (answer, sender) = ended?;
        let (parts, incoming) = answer.into_parts();
        let local = first.local;
        let body = Body::new(
            incoming,
            self.pool.clone(),
            sender.map(|sender| (key.clone(), sender, first)),
            within(self.timeouts.idle, call.via.silence),
        );
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            url: call.url.clone(),
            local,
        })
    }

    fn request(&self, call: &Call, http2: bool) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        let target = call.url.target();
        let proxy = match call.url.origin.scheme {
            Scheme::Http => self.proxies.of(&call.url.origin).and_then(Result::ok),
            // Such a request goes through the proxy unseen.
            Scheme::Https => None,
        };
        let uri = if http2 || proxy.is_some() {
            format!("{}{target}", call.url.origin)
        } else {
            target
        };
        // The URL was checked character by character when it was read; the root is a safe answer to the impossible.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let headers = request.headers_mut();
        *headers = call.headers.clone();
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if let Some(login) = proxy.and_then(|proxy| proxy.login.as_ref()) {
            headers.insert(header::PROXY_AUTHORIZATION, login.clone());
        }
        if http2 {
            *request.version_mut() = Version::HTTP_2;
        } else if let Ok(host) = HeaderValue::from_str(&call.url.origin.authority()) {
            headers.insert(header::HOST, host);
        }
        request
    }
}

/// An upload of this size may take this much longer: 64 KiB a second is the slowest link that is waited for.
fn upload_allowance(bytes: usize) -> Duration {
    Duration::from_secs(u64::try_from(bytes >> 16).unwrap_or(u64::MAX))
}

type Sent = Result<Result<Response<Incoming>, hyper::Error>, tokio::time::error::Elapsed>;

fn settle(sent: Sent, limit: Duration, first: &First) -> Result<Response<Incoming>, SendFault> {
    match sent {
        Err(_) => Err(SendFault::HeadersTimeout(limit)),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(of_hyper(&error, first)),
    }
}

fn tell(
    call: &Call,
    ended: &Result<(Response<Incoming>, Option<crate::pool::Http1>), SendFault>,
    watch: &Watch,
    start: Instant,
) {
    watch.tell(|| {
        let answer = ended.as_ref().ok().map(|(answer, _)| answer);
        Fact::Request {
            method: call.method.to_string(),
            endpoint: call.url.origin.to_string(),
            path: call.url.path.chars().take(512).collect(),
            credential: call.credential.clone(),
            status: answer.map(|answer| answer.status().as_u16()),
            headers: answer
                .map(|answer| of_interest(answer.headers()))
                .unwrap_or_default(),
            protocol: answer.map(|answer| format!("{:?}", answer.version())),
            error: ended.as_ref().err().map(ToString::to_string),
            micros: micros(start.elapsed()),
        }
    });
}

/// The headers that reports show, sanitised and bounded. None of them holds a secret.
pub(crate) fn of_interest(headers: &HeaderMap) -> Vec<(String, String)> {
    const NAMES: [&str; 14] = [
        "content-type",
        "content-length",
        "content-range",
        "docker-content-digest",
        "docker-distribution-api-version",
        "retry-after",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "docker-ratelimit-source",
        "server",
        "date",
        "warning",
        "via",
    ];
    let mut found = Vec::new();
    for name in NAMES {
        for value in headers.get_all(name).iter().take(4) {
            if let Ok(value) = value.to_str() {
                found.push((name.to_owned(), value.chars().take(300).collect()));
            }
        }
    }
    found
}

fn of_hyper(error: &hyper::Error, first: &First) -> SendFault {
    if let Some(fault) = late_alert(error) {
        return SendFault::Tls(fault);
    }
    if first.is_tls() && error.is_parse() {
        return SendFault::TlsOnPlain;
    }
    if error.is_parse_too_large() {
        return SendFault::HeadersTooLarge;
    }
    if error.is_parse() {
        return SendFault::NotHttp(error.to_string());
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::UnexpectedEof => SendFault::Closed,
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::ConnectionAborted => SendFault::Reset,
                kind => SendFault::Other(kind.to_string()),
            };
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return SendFault::Closed;
    }
    let beneath = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    SendFault::Other(format!("{error}{beneath}"))
}
