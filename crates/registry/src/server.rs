//! The service: its sockets, its connections, its end.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::io::InspectWriter;
use tokio_util::sync::CancellationToken;
use towline_sys::format::FormatVersion;
use towline_sys::fs::{self, FsError};
use towline_sys::task;

use crate::activity::Activity;
use crate::cache::{Cache, CacheError};
use crate::collect::Gate;
use crate::control;
use crate::error::Error;
use crate::handlers::Registry;
use crate::log::{Entry, Log};
use crate::metrics::Metrics;
use crate::options::{Limits, Login, Options, Tokens};
use crate::quota::Quotas;
use crate::rate::Rates;
use crate::ready::State;
use crate::refusals::Refusals;
use crate::reload::{self, Reloader};
use crate::sendfile::{Direct, Lane};
use crate::settings::{Live, Settings};
use crate::storage::s3::{Journal, OpenError, S3Blobs, S3Metadata, S3Options};
use crate::storage::{BlobStore, FileBlobs, FileMetadata, MetadataStore};
use crate::tls::{self, LiveTls};
use crate::tokens::Keys;
use crate::uploads::Uploads;

/// The version of what is on disk.
const FORMAT: FormatVersion = FormatVersion::new("towline-registry", 1);
/// How often uploads that nobody touches are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// The smallest bound on heads of requests that hyper can keep.
const LEAST_HEAD: usize = 8 << 10;

/// A registry that listens and does not answer yet.
#[derive(Debug)]
pub struct Service {
    control: Option<UnixListener>,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    tls: Option<LiveTls>,
    registry: Arc<Registry>,
    reloader: Arc<Reloader>,
    log: Arc<Log>,
    _lock: File,
}

/// A registry that runs; it ends when dropped.
#[derive(Debug)]
pub struct Handle {
    addresses: Vec<SocketAddr>,
    tls: bool,
    shutdown: CancellationToken,
    reloader: Arc<Reloader>,
    registry: Arc<Registry>,
    run: tokio::task::JoinHandle<()>,
}

impl Service {
    /// Opens the directory and binds the sockets.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let first = *options.listen.first().ok_or(Error::NoAddress)?;
        let told = options;
        let (told, (options, watched)) = task::blocking("read the configuration", move || {
            reload::load(&told).map(|loaded| (told, loaded))
        })
        .await?;
        let tls = options.tls.as_ref();
        let tls = tls.map(|tls| tls::config(tls, options.client_auth.as_ref()));
        let tls = tls.transpose()?.map(|config| Arc::new(Live::new(config)));
        let root = options.root.clone();
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for mut address in options.listen.iter().copied() {
            // Port 0 on several addresses means the same free port on all of them.
            if address.port() == 0 && address != first {
                address.set_port(addresses.first().map_or(0, SocketAddr::port));
            }
            let listen = |source| Error::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(listen)?;
            addresses.push(listener.local_addr().map_err(listen)?);
            listeners.push(listener);
        }
        let address = addresses[0].to_string();
        let (lock, registry, log) =
            task::blocking("open the registry", move || open_storage(options, &address)).await?;
        let registry = Arc::new(registry);
        let reloader = Arc::new(Reloader::new(
            told,
            Arc::clone(&registry),
            tls.clone(),
            watched,
        ));
        Ok(Self {
            control: control::listen(&root),
            listeners,
            addresses,
            tls,
            reloader,
            registry,
            log: Arc::new(log),
            _lock: lock,
        })
    }

    /// Starts a registry in the background.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        let service = Self::bind(options).await?;
        let shutdown = CancellationToken::new();
        let (addresses, tls) = (service.addresses.clone(), service.tls.is_some());
        let reloader = Arc::clone(&service.reloader);
        let registry = Arc::clone(&service.registry);
        let run = task::spawn("registry", service.run(shutdown.clone()));
        Ok(Handle {
            addresses,
            tls,
            shutdown,
            reloader,
            registry,
            run,
        })
    }

    /// The first address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, in the order of the options.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until told to stop; then it goes on for as long as it announces that, and what is under way has its time to end.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(
            self.registry.settings.get().limits.connections,
        ));
        let _downloads = StopDownloads(Arc::clone(&self.registry));
        let stop = CancellationToken::new();
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let server = Server {
                registry: Arc::clone(&self.registry),
                log: Arc::clone(&self.log),
                tls: self.tls.clone(),
                connections: Arc::clone(&connections),
                shutdown: stop.clone(),
            };
            accepting.spawn(server.accept(listener));
        }
        let registry = Arc::clone(&self.registry);
        let sweeping = async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let registry = Arc::clone(&registry);
                let age = registry.settings.get().limits.upload_age;
                task::blocking("sweep uploads", move || {
                    registry.uploads.sweep(SystemTime::now(), age)
                })
                .await;
            }
        };
        let registry = Arc::clone(&self.registry);
        let draining = async {
            shutdown.cancelled().await;
            registry.state.drain();
            tokio::time::sleep(registry.settings.get().drain.announce).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = draining => {}
            () = async { while accepting.join_next().await.is_some() {} } => {}
            () = sweeping => {}
            () = self.reloader.watch() => {}
            () = Arc::clone(&self.registry).collect_on_schedule() => {}
            () = Arc::clone(&self.registry).control(self.control) => {}
            () = Arc::clone(&self.registry).tidy_when_idle() => {}
            () = Arc::clone(&self.registry).keep_cache_small() => {}
            () = keep_lease(self.registry.shared.clone()) => {}
        }
        let registry = Arc::clone(&self.registry);
        task::blocking("note what the cache was used for", move || {
            registry.note_uses();
        })
        .await;
        if let Some(shared) = &self.registry.shared {
            shared.give_up().await;
        }
    }
}

/// Stays the writer of shared storage, if it is that, and looks after its log; never ends.
async fn keep_lease(shared: Option<Arc<Journal>>) {
    match shared {
        Some(shared) => {
            tokio::join!(shared.keep_lease(), shared.keep_log_short());
        }
        None => std::future::pending().await,
    }
}

/// Ends the downloads of the cache with the service.
struct StopDownloads(Arc<Registry>);

impl Drop for StopDownloads {
    fn drop(&mut self) {
        self.0.cache.stop();
    }
}

impl Handle {
    /// The first address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, in the order of the options.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Reads the configuration file again. What cannot be used changes nothing.
    pub async fn reload(&self) -> Result<(), Error> {
        self.reloader.reload().await
    }

    /// Stops the registry in its own time, as the options say; the requests that were cut, in words.
    pub async fn drain(mut self) -> Vec<String> {
        self.shutdown.cancel();
        // Its own deadline ends it.
        (&mut self.run).await.ok();
        self.registry.state.flights().was_cut()
    }

    /// Stops the registry: no new connections, requests have until the deadline. True if all of them ended.
    pub async fn shutdown(mut self, deadline: Duration) -> bool {
        self.shutdown.cancel();
        tokio::time::timeout(deadline, &mut self.run).await.is_ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.run.abort();
    }
}

fn open_storage(options: Options, address: &str) -> Result<(File, Registry, Log), Error> {
    let root = options.root.clone();
    let shared_storage = options.storage.clone();
    let storage = |source: FsError| Error::Storage {
        root: root.clone(),
        source,
    };
    FORMAT
        .check_or_write(&root)
        .map_err(|source| Error::Format {
            root: root.clone(),
            source,
        })?;
    let lock = lock(&root)?;
    let Limits {
        uploads,
        blob_bytes,
        entries,
        ..
    } = options.limits;
    let uploads = Uploads::open(root.join("uploads"), uploads, blob_bytes).map_err(storage)?;
    uploads.sweep(SystemTime::now(), options.limits.upload_age);
    let settings = Settings::of(&options);
    let rotate = match &options.login {
        Login::Tokens(tokens) => tokens.rotate,
        Login::Basic => Tokens::default().rotate,
    };
    let keys = Keys::open(root.join("keys"), rotate, jiff::Timestamp::now()).map_err(storage)?;
    let metrics = Arc::new(Metrics::default());
    let refusals = Arc::new(Refusals::default());
    let log = Log::open(
        options.access_log.as_deref(),
        Arc::clone(&metrics),
        Arc::clone(&refusals),
    );
    let log = log.map_err(|source| Error::AccessLog {
        path: options.access_log.unwrap_or_default(),
        source,
    })?;
    let has_cache = !options.cache.upstreams.is_empty();
    let cache = Cache::open(&root, options.cache).map_err(|error| match error {
        CacheError::Upstream(source) => Error::Upstream(source),
        CacheError::Fs(source) => storage(source),
    })?;
    let (blobs, metadata, shared): (Box<dyn BlobStore>, Box<dyn MetadataStore>, _) =
        if let Some(options) = &shared_storage {
            if has_cache {
                return Err(Error::SharedCache);
            }
            let journal = open_shared(options, &node_name(&root).map_err(storage)?, address)?;
            (
                Box::new(S3Blobs::new(Arc::clone(&journal))),
                Box::new(S3Metadata::new(Arc::clone(&journal))),
                Some(journal),
            )
        } else {
            (
                Box::new(FileBlobs::new(root.clone())),
                Box::new(FileMetadata::new(root.clone(), entries)),
                None,
            )
        };
    let registry = Registry {
        settings: Live::new(settings),
        sparse: options.sparse,
        blobs,
        metadata,
        uploads,
        keys,
        gate: Gate::default(),
        metrics,
        cache,
        refusals,
        shared,
        quotas: Quotas::default(),
        rates: Rates::default(),
        state: State::new(root.clone()),
    };
    Ok((lock, registry, log))
}

/// Opens object storage. Blocks, on a thread of a runtime that is for that.
pub(crate) fn open_shared(
    options: &S3Options,
    node: &str,
    address: &str,
) -> Result<Arc<Journal>, Error> {
    let address = options.advertise.as_deref().unwrap_or(address);
    let handle = tokio::runtime::Handle::current();
    Journal::open(options, handle, node, address).map_err(|error| match error {
        OpenError::Options(source) => Error::SharedOptions(source),
        OpenError::Storage(source) => Error::SharedStorage {
            place: options.place(),
            source,
        },
    })
}

/// The name of the directory among those that share storage: its registry, restarted, is known by it.
pub(crate) fn node_name(root: &Path) -> Result<String, FsError> {
    let path = root.join("node");
    if let Some(bytes) = fs::read_optional(&path, 64)? {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let name = uuid::Uuid::new_v4().to_string();
    fs::write_atomic(path, name.as_bytes())?;
    Ok(name)
}

/// Takes the directory for this process; the lock ends with it.
pub(crate) fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let failed = |source: io::Error| Error::Storage {
        root: root.to_owned(),
        source: FsError::new("lock", &path, source),
    };
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            root: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What the connections of one listener share.
#[derive(Clone)]
struct Server {
    registry: Arc<Registry>,
    log: Arc<Log>,
    tls: Option<LiveTls>,
    connections: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Server {
    /// Takes connections until told to stop, then waits for those that are open.
    async fn accept(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let next = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&self.connections).acquire_owned().await.ok();
                (listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                () = self.shutdown.cancelled() => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, peer)) => {
                    drop(open.spawn(self.clone().connection(stream, peer, permit)));
                }
                Err(error) => {
                    // Too many open files, for instance: what is open must first end.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let deadline = self.registry.settings.get().drain.deadline;
        let ending = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, ending).await.is_err() {
            for request in self.registry.state.flights().cut() {
                tracing::warn!(request, "cut at the end");
            }
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        _permit: Option<OwnedSemaphorePermit>,
    ) {
        let registry = Arc::clone(&self.registry);
        let _connected = registry.state.connected();
        // Without it answers are only a little slower.
        stream.set_nodelay(true).ok();
        let Some(config) = self.tls.as_ref().map(|tls| tls.get()) else {
            let lane = Lane::default();
            let direct = Direct::new(stream, lane.clone());
            return self.serve(direct, peer, None, Some(lane)).await;
        };
        let config = Arc::clone(&*config);
        let patience = self.registry.settings.get().limits.head_patience;
        match tokio::time::timeout(patience, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                // Verified, or there is none.
                let certificates = stream.get_ref().1.peer_certificates();
                let user = certificates.and_then(|chain| tls::user(chain.first()?));
                self.serve(stream, peer, user, None).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        user: Option<String>,
        lane: Option<Lane>,
    ) {
        let mut http = auto::Builder::new(TokioExecutor::new());
        let (patience, stalled, head) = {
            let limits = &self.registry.settings.get().limits;
            let head = limits.head_bytes.max(LEAST_HEAD);
            (limits.head_patience, limits.body_patience, head)
        };
        let activity = Activity::new();
        let wrote = Arc::clone(&activity);
        let stream = InspectWriter::new(stream, move |_: &[u8]| wrote.touch());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(head);
        let list = u32::try_from(head).unwrap_or(u32::MAX);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(list)
            .max_concurrent_streams(100);
        let (registry, log) = (self.registry, self.log);
        let asked = Arc::clone(&activity);
        let service = service_fn(move |request| {
            let turn = asked.request();
            let (registry, log) = (Arc::clone(&registry), Arc::clone(&log));
            let user = user.clone();
            // Only there a body's slices reach the connection as they are.
            let lane = lane
                .clone()
                .filter(|_| request.version() <= Version::HTTP_11);
            async move {
                let began = Instant::now();
                let flights = registry.state.flights();
                let flight = flights.begin(request.method().as_str(), request.uri().path());
                let mut entry = Entry::begin(&request, peer);
                let mut answer = registry.answer(request, user, &mut entry).await;
                if let Some(lane) = &lane {
                    answer = answer.map(|body| body.by(lane));
                }
                let under_way = (flight, turn);
                Ok::<_, std::convert::Infallible>(log.follow(entry, began, answer, under_way))
            }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = activity.quiet(patience, stalled) => {
                tracing::debug!(%peer, "nothing happened on a connection for too long");
                return;
            }
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error, "connection");
        }
    }
}
