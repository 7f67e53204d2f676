//! A scripted HTTP/1.1 server on loopback that remembers every byte it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use towline_cause::Failure;
use towline_distribution::{Client, Options, Repository, Retries, Timeouts, Trace};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, Manifest, Reference, media_type};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Which request to this server it is, from 1.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    /// After the body that was given, close.
    close: bool,
    /// After the body that was given, say nothing more.
    stall: bool,
    raw: Option<Vec<u8>>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Bytes instead of an HTTP answer, then the end.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self {
            raw: Some(bytes.to_vec()),
            close: true,
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status).json(&format!(
            r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#
        ))
    }

    /// Announces `length` bytes, sends the body, and closes.
    pub(crate) fn cut(mut self, length: usize) -> Self {
        self.length = Some(length);
        self.close = true;
        self
    }

    /// Announces `length` bytes, sends the body, and says nothing more.
    pub(crate) fn stall(mut self, length: usize) -> Self {
        self.length = Some(length);
        self.stall = true;
        self
    }

    pub(crate) fn close(mut self) -> Self {
        self.close = true;
        self
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A running server.
pub(crate) struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn plain(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(("127.0.0.1", 0), None, Arc::new(handler)).await
    }

    /// On port 80 of loopback: in a namespace of its own alone.
    pub(crate) async fn plain_on_port_80(
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(("127.0.0.1", 80), None, Arc::new(handler)).await
    }

    pub(crate) async fn plain_at(
        ip: &str,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start((ip, 0), None, Arc::new(handler)).await
    }

    pub(crate) async fn tls(
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(("127.0.0.1", 0), Some(config), Arc::new(handler)).await
    }

    async fn start(
        place: (&str, u16),
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: Handler,
    ) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let memory = seen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (handler, memory, tls) = (handler.clone(), memory.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, handler, memory).await,
                        Some(config) => {
                            if let Ok(stream) =
                                tokio_rustls::TlsAcceptor::from(config).accept(stream).await
                            {
                                serve(stream, handler, memory).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Methods and paths in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen()
            .iter()
            .map(|seen| format!("{} {}", seen.method, seen.path()))
            .collect()
    }

    /// Everything that was sent here, as one text.
    pub(crate) fn everything(&self) -> String {
        self.seen()
            .iter()
            .map(|seen| format!("{}\n{}\n", seen.head, seen.body))
            .collect::<Vec<_>>()
            .concat()
    }

    /// `127.0.0.1:port/team/app:1.0`.
    pub(crate) fn image(&self) -> String {
        format!("{}/team/app:1.0", self.address)
    }

    pub(crate) fn repository(&self, credential: Credential) -> Repository {
        repository(&client(options()), &self.image(), credential)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    handler: Handler,
    memory: Arc<Mutex<Vec<Seen>>>,
) {
    while let Some(mut request) = read(&mut stream).await {
        {
            let mut seen = memory.lock().unwrap();
            request.number = seen.len() + 1;
            seen.push(request.clone());
        }
        let reply = handler(&request);
        let mut bytes = Vec::new();
        if let Some(raw) = &reply.raw {
            bytes.extend_from_slice(raw);
        } else {
            let length = reply.length.unwrap_or(reply.body.len());
            bytes.extend_from_slice(
                format!(
                    "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n",
                    reply.status
                )
                .as_bytes(),
            );
            for (name, value) in &reply.headers {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            if request.method != "HEAD" {
                bytes.extend_from_slice(&reply.body);
            }
        }
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if reply.stall {
            std::future::pending::<()>().await;
        }
        if reply.close {
            stream.shutdown().await.ok();
            return;
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen {
        method,
        target,
        head,
        body: String::new(),
        number: 0,
    };
    let length = seen
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    Some(seen)
}

/// Options for tests: nothing waits long.
pub(crate) fn options() -> Options {
    let short = std::time::Duration::from_millis(700);
    Options {
        system_roots: false,
        timeouts: Timeouts {
            dns: short * 3,
            connect: short,
            tls: short,
            headers: short,
            idle: short,
        },
        retries: Retries {
            attempts: 3,
            base: std::time::Duration::from_millis(5),
            longest: std::time::Duration::from_millis(50),
            patience: std::time::Duration::ZERO,
        },
        ..Options::default()
    }
}

pub(crate) fn client(options: Options) -> Client {
    towline_distribution::tls::install_provider();
    Client::new(options).unwrap()
}

pub(crate) fn repository(client: &Client, image: &str, credential: Credential) -> Repository {
    let trace = Trace {
        attempt: "attempt-7".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    client.repository(&Reference::parse(image).unwrap(), credential, trace)
}

pub(crate) fn bob() -> Credential {
    Credential::basic("bob", "canary-password")
}

/// A small manifest that names one blob as config and as layer.
pub(crate) fn manifest(blob: &[u8]) -> Vec<u8> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, blob),
        layers: vec![Descriptor::of(media_type::OCI_LAYER, blob)],
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    serde_json::to_vec(&manifest).unwrap()
}

pub(crate) fn manifest_reply(bytes: &[u8]) -> Reply {
    Reply::new(200)
        .header("Content-Type", media_type::OCI_MANIFEST)
        .header("Docker-Content-Digest", &Digest::of(bytes).to_string())
        .body(bytes)
}

/// A failure with everything that it prints anywhere, for checks on its words.
pub(crate) fn words(failure: &Failure) -> String {
    format!("{failure} | {} | {failure:?}", failure.chain())
}

/// An address of [`elsewhere`] that is not loopback.
pub(crate) const AWAY: &str = "10.99.0.1";

/// Runs a test in a network namespace of its own that has [`AWAY`] besides loopback. Does nothing without root.
pub(crate) fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    use towline_sys::testing::{in_network_namespace, need_program, need_root};
    if !need_root() {
        return;
    }
    let Some(ip) = need_program("ip") else { return };
    in_network_namespace(|| {
        for words in ["link set lo up", "address add 10.99.0.1/32 dev lo"] {
            let status = std::process::Command::new(&ip)
                .args(words.split(' '))
                .status()
                .unwrap();
            assert!(status.success(), "ip {words}");
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
}
