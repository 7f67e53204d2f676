//! What a registry is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use towline_keyring::Secret;

use crate::access::Access;
use crate::cache::options::CacheOptions;
use crate::quota::Quota;
use crate::rate::Rate;
use crate::storage::s3::S3Options;

/// What a registry is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that it owns.
    pub root: PathBuf,
    /// Keeps its content on object storage that it may share; uploads and keys stay in `root`.
    pub storage: Option<S3Options>,
    /// Where it listens; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Speaks TLS with this certificate.
    pub tls: Option<Tls>,
    /// A configuration file, laid over these options now and again whenever it changes.
    pub config: Option<PathBuf>,
    /// Takes certificates of clients as logins; needs `tls`.
    pub client_auth: Option<ClientAuth>,
    /// Who may do what.
    pub access: Access,
    /// How clients log in, where there are users.
    pub login: Login,
    /// Allows to listen beyond loopback although anyone may push.
    pub open_beyond_loopback: bool,
    /// Takes no changes.
    pub read_only: bool,
    /// Shows people what it holds, at `/`.
    pub web: bool,
    /// Takes manifests whose layers are not all there and indexes whose platforms are not, as a mirror of a part needs.
    pub sparse: bool,
    /// Which blobs a push may take over from other repositories.
    pub mount: Mount,
    /// When garbage is collected.
    pub schedule: Schedule,
    /// The registries that it is a pull-through cache of.
    pub cache: CacheOptions,
    /// Bounds.
    pub limits: Limits,
    /// How much may be stored.
    pub quota: Quota,
    /// How it stops.
    pub drain: Drain,
    /// A file that gets one JSON object a line for each request, appended.
    pub access_log: Option<PathBuf>,
}

impl Options {
    /// A registry in `root` on a free port of 127.0.0.1 that is open to everyone on this machine.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            storage: None,
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            tls: None,
            client_auth: None,
            config: None,
            access: Access::open(),
            login: Login::Basic,
            open_beyond_loopback: false,
            read_only: false,
            web: true,
            sparse: false,
            mount: Mount::default(),
            schedule: Schedule::default(),
            cache: CacheOptions::default(),
            limits: Limits::default(),
            quota: Quota::default(),
            drain: Drain::default(),
            access_log: None,
        }
    }
}

/// How clients log in. A name and password sent with each request are taken either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// With name and password.
    Basic,
    /// With a token, for which name and password are given once to this registry's own token service, at `/token`.
    Tokens(Tokens),
}

/// How tokens are issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// How long a token is good; at most an hour.
    pub lifetime: Duration,
    /// How long a key signs before another one takes its place. Read at the start only.
    pub rotate: Duration,
    /// Where clients reach the token service, if not at this registry under the name that they asked for.
    pub realm: Option<String>,
    /// The registry's name in challenges and tokens.
    pub service: String,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            rotate: Duration::from_secs(30 * 86400),
            realm: None,
            service: "towline-registry".to_owned(),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate and those that sign it, PEM.
    pub certificate_pem: String,
    /// The key, PEM.
    pub key_pem: Secret,
}

/// Certificates of clients: the common name of one is the name of its user.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// The authorities that sign them, PEM.
    pub ca_pem: String,
    /// Whether a client without one is turned away at once; otherwise it may log in by other ways.
    pub required: bool,
}

/// When garbage is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often; never of its own accord, if not said.
    pub every: Option<Duration>,
    /// What is younger stays.
    pub grace: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            every: None,
            grace: Duration::from_secs(3600),
        }
    }
}

/// Which blobs a push may take over (mount) from other repositories that its user may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mount {
    /// Those of any repository, also where the client names none.
    #[default]
    Any,
    /// Those of the repository that the client names.
    Named,
    /// None: every repository is pushed to in full.
    Never,
}

/// How a registry stops that is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it goes on and says that it is not ready, so that those who send it requests send them elsewhere.
    pub announce: Duration,
    /// How long requests may then go on.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            announce: Duration::ZERO,
            deadline: Duration::from_secs(5),
        }
    }
}

/// Bounds on what a client may make the registry do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub blob_bytes: u64,
    /// Uploads that are open at once.
    pub uploads: usize,
    /// How long an upload that nobody touches is kept.
    pub upload_age: Duration,
    /// How often a client may ask; as often as it likes, if not said.
    pub rate: Option<Rate>,
    /// Bytes of the disk that uploads leave free, so that deleting and collecting have room.
    pub reserve: u64,
    /// The largest head of a request, in bytes; at least 8 KiB.
    pub head_bytes: usize,
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long a client may take to send a request's head.
    pub head_patience: Duration,
    /// How long a client may send no byte of a body.
    pub body_patience: Duration,
    /// The longest list in one answer; the rest is reached by its `Link`.
    pub page: usize,
    /// Entries of one directory (tags, referrers, repositories) that are read.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes: 64 << 30,
            uploads: 1024,
            upload_age: Duration::from_secs(24 * 3600),
            rate: None,
            reserve: 16 << 20,
            head_bytes: 64 << 10,
            connections: 1024,
            head_patience: Duration::from_secs(30),
            body_patience: Duration::from_secs(60),
            page: 1000,
            entries: 1_000_000,
        }
    }
}
