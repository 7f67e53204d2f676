//! What the client is told: name servers, trust, plain HTTP, timeouts, limits, retries.

use std::net::SocketAddr;
use std::time::Duration;

use crate::endpoint::Sources;
use crate::endpoint::logins::MirrorLogins;
use crate::pace::Pace;
use crate::proxy::Proxies;

/// Where registry names are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Resolver {
    /// The system's: `/etc/hosts`, then the servers of `/etc/resolv.conf` with its search list. Read again for every look-up.
    #[default]
    System,
    /// These name servers alone, over UDP and TCP, without search list and `/etc/hosts`.
    Servers(Vec<SocketAddr>),
}

/// Which registries are spoken to over plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// `localhost`, 127.0.0.0/8 and `::1`, unless the peer answers TLS.
    #[default]
    Loopback,
    /// These registries as written in a reference (`host` or `host:port`), and loopback as above.
    Hosts(Vec<String>),
    /// Every registry.
    All,
}

/// How long each phase may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// One look-up, all servers together.
    pub dns: Duration,
    /// Opening a TCP connection, all addresses together.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// From the end of a request to the end of the response's headers.
    pub headers: Duration,
    /// Between two pieces of a body; a blob that stays silent this long counts as stalled.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dns: Duration::from_secs(10),
            connect: Duration::from_secs(20),
            tls: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            idle: Duration::from_secs(30),
        }
    }
}

/// The most that is read of each kind of answer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A manifest or an index.
    pub manifest: usize,
    /// The answer of a token service.
    pub token: usize,
    /// The body of an error.
    pub error: usize,
    /// One page of tags or referrers.
    pub page: usize,
    /// The headers of a response.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: towline_oci::MAX_DOCUMENT_BYTES,
            token: 1 << 20,
            error: 64 << 10,
            page: 8 << 20,
            headers: 64 << 10,
        }
    }
}

/// How often a request that may succeed later is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Most attempts of one request, the first included.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one, with up to a half of it added or taken at random.
    pub base: Duration,
    /// Longest wait; a server that asks for more gets no second request and its wish is kept in the failure.
    pub longest: Duration,
    /// How long the rest of a blob is asked for, whatever [`Retries::attempts`] says, where a host that has answered takes no connection any
    /// more: a registry that restarts. Counted from the last byte that came.
    pub patience: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 4,
            base: Duration::from_millis(250),
            longest: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

impl Retries {
    /// One attempt only.
    pub const NONE: Self = Self {
        attempts: 1,
        base: Duration::ZERO,
        longest: Duration::ZERO,
        patience: Duration::ZERO,
    };
}

/// What a [`crate::Client`] is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where registry names are looked up.
    pub resolver: Resolver,
    /// Certificate authorities to trust besides the system's, each one or more PEM certificates.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// Whether the system's certificate authorities are trusted.
    pub system_roots: bool,
    /// Which registries are spoken to over plain HTTP.
    pub plain_http: PlainHttp,
    /// Where mirrors are configured. None by default: an image is asked for at its own registry.
    pub endpoints: Sources,
    /// Where the logins of mirrors come from; by default they have none.
    pub mirror_logins: MirrorLogins,
    /// Which proxies stand between this machine and registries.
    pub proxies: Proxies,
    /// Hosts of token services that get credentials although they lie outside the registry's own domain.
    pub trusted_realms: Vec<String>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// The least that a connection has to bring of a blob, or another one is tried; after [`Retries::attempts`] slow ones in a row the pull
    /// fails.
    pub pace: Pace,
    /// The most that is read.
    pub limits: Limits,
    /// How often a request is sent again.
    pub retries: Retries,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Most bytes of a TCP segment, both ways, where the path is said to lose larger ones; the system decides where nothing is said.
    pub max_segment: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resolver: Resolver::System,
            extra_ca_pem: Vec::new(),
            system_roots: true,
            plain_http: PlainHttp::Loopback,
            endpoints: Sources::default(),
            mirror_logins: MirrorLogins::default(),
            proxies: Proxies::default(),
            trusted_realms: Vec::new(),
            http2: true,
            timeouts: Timeouts::default(),
            pace: Pace::default(),
            limits: Limits::default(),
            retries: Retries::default(),
            user_agent: concat!("towline/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_segment: None,
        }
    }
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// An extra certificate authority does not parse.
    #[error("extra certificate authority number {number} holds no usable PEM certificate: {why}")]
    CertificateAuthority {
        /// Its place in [`Options::extra_ca_pem`], from 1.
        number: usize,
        /// What the parser says.
        why: String,
    },
    /// A client certificate or its key does not parse.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
    /// The user agent cannot stand in a header.
    #[error("the user agent {0:?} cannot be sent in a header")]
    UserAgent(String),
    /// The TLS library refuses its own set-up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}
