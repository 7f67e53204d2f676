//! The component: what it is told, how it starts, how others ask and stop it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Limits};
use crate::kubelet_client::{KubeletClient, KubeletClientError};
use crate::metrics::Metrics;
use crate::pki::{Authority, Certified, Identity, PkiError};
use crate::storage::{LogLimits, Store, StoreError};
use crate::{bootstrap, server};

/// What the API server is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds `objects.redb` and `pki/`; created if it is not there.
    pub data_dir: PathBuf,
    /// Addresses to listen on; the first is the one of kubeconfigs. Port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Further host names of the serving certificate.
    pub server_names: Vec<String>,
    /// Further addresses of the serving certificate, for example of a listener that is added later.
    pub server_ips: Vec<IpAddr>,
    /// Bounds on what clients may ask.
    pub limits: Limits,
    /// Bounds of the change log.
    pub log: LogLimits,
}

impl Options {
    /// Options with defaults: everything in `data_dir`, listening on `listen`.
    pub fn new(data_dir: impl Into<PathBuf>, listen: Vec<SocketAddr>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            server_names: Vec::new(),
            server_ips: Vec::new(),
            limits: Limits::default(),
            log: LogLimits::default(),
        }
    }
}

/// What can go wrong when the server starts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("cannot prepare the data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: towline_sys::fs::FsError,
    },
    /// No address was given.
    #[error("the API server was given no address to listen on")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for the Kubernetes API")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open the API server's objects")]
    Store(#[from] StoreError),
    /// The first objects cannot be written.
    #[error("cannot create the first namespaces")]
    Bootstrap,
    /// Certificates cannot be made.
    #[error("cannot prepare the API server's certificates")]
    Pki(#[from] PkiError),
    /// The client for kubelets cannot be made.
    #[error("cannot prepare calls to kubelets")]
    Kubelets(#[from] KubeletClientError),
    /// TLS refuses the configuration.
    #[error("cannot prepare TLS")]
    Tls(#[from] rustls::Error),
    /// The client verifier refuses the authority.
    #[error("cannot prepare the verification of client certificates")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// The API server.
#[derive(Debug)]
pub struct Service;

/// A running API server. Dropping it stops the server without waiting.
#[derive(Debug)]
pub struct Handle {
    app: Arc<App>,
    addresses: Vec<SocketAddr>,
    acceptor: Acceptor,
    connections: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Service {
    /// Opens the store, binds every address, and serves. When it returns, connections are accepted.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        if options.listen.is_empty() {
            return Err(Error::NoAddress);
        }
        let mut listeners = Vec::new();
        for address in &options.listen {
            listeners.push(listen(*address).await?);
        }
        let addresses: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).collect();
        let opened = options.clone();
        let (store, authority) =
            towline_sys::task::blocking("open-apiserver-data", move || open(&opened)).await?;
        let acceptor = Acceptor(tls(&authority, &options, &addresses)?);
        let app = Arc::new(App {
            kubelets: KubeletClient::new(&authority)?,
            store,
            authority,
            metrics: Metrics::default(),
            stopping: CancellationToken::new(),
            watches: Arc::new(Semaphore::new(options.limits.watches)),
            requests: Semaphore::new(options.limits.requests),
            limits: options.limits,
        });
        bootstrap::namespaces(&app)
            .await
            .map_err(|_| Error::Bootstrap)?;
        let connections = Arc::new(Semaphore::new(app.limits.connections));
        let mut handle = Handle {
            app,
            addresses,
            acceptor,
            connections,
            tasks: JoinSet::new(),
        };
        for (listener, _) in listeners {
            handle.serve(listener);
        }
        handle
            .tasks
            .spawn(bootstrap::expire_events(Arc::clone(&handle.app)));
        Ok(handle)
    }
}

fn open(options: &Options) -> Result<(Store, Authority), Error> {
    let at = |source| Error::DataDir {
        path: options.data_dir.clone(),
        source,
    };
    towline_sys::fs::create_dir_all_mode(&options.data_dir, 0o700).map_err(at)?;
    let authority = Authority::open(&options.data_dir.join("pki"))?;
    let store = Store::open(&options.data_dir.join("objects.redb"), options.log)?;
    Ok((store, authority))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

fn tls(
    authority: &Authority,
    options: &Options,
    addresses: &[SocketAddr],
) -> Result<TlsAcceptor, Error> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend(options.server_names.iter().cloned());
    let mut ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    ips.extend(&options.server_ips);
    ips.push(IpAddr::from([127, 0, 0, 1]));
    ips.push(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    ips.retain(|ip| !ip.is_unspecified());
    let (certificate, key) = authority.serving("kube-apiserver", &names, &ips)?.der()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.ca_der()?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Handle {
    fn serve(&mut self, listener: TcpListener) {
        let app = Arc::clone(&self.app);
        self.tasks.spawn(server::serve(
            app,
            listener,
            self.acceptor.0.clone(),
            Arc::clone(&self.connections),
        ));
    }

    /// Listens on one more address. Its IP must be in `Options::server_ips`, or clients will not accept the certificate.
    pub async fn listen_also(&mut self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let (listener, local) = listen(address).await?;
        self.addresses.push(local);
        self.serve(listener);
        Ok(local)
    }

    /// The first address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Every address.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `https://ADDRESS:PORT` of the first address, as clients on this machine reach it.
    pub fn url(&self) -> String {
        let mut address = self.local_addr();
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                IpAddr::from([127, 0, 0, 1])
            } else {
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
            });
        }
        format!("https://{address}")
    }

    /// A kubeconfig (YAML) with a fresh client certificate for `identity`. It holds a private key.
    pub fn kubeconfig(&self, identity: &Identity) -> Result<String, PkiError> {
        self.app.authority.kubeconfig(&self.url(), identity)
    }

    /// The certificate of the cluster's authority, PEM.
    pub fn ca_pem(&self) -> &str {
        self.app.authority.ca_pem()
    }

    /// A serving certificate of the cluster's authority, for the kubelet's endpoint for example.
    pub fn issue_serving_cert(
        &self,
        common_name: &str,
        names: &[String],
        ips: &[IpAddr],
    ) -> Result<Certified, PkiError> {
        self.app.authority.serving(common_name, names, ips)
    }

    /// Ends watches, lets requests in work finish until `deadline` from now, and closes the store.
    /// Nothing that was acknowledged depends on this: every write was durable before its answer.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.app.stopping.cancel();
        let finished = tokio::time::timeout(deadline, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
        if finished.is_err() {
            tracing::warn!("connections to the API server were still open at the deadline");
            self.tasks.abort_all();
        }
        let store = self.app.store.clone();
        towline_sys::task::blocking("close-apiserver-store", move || store.close()).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.app.stopping.cancel();
    }
}
