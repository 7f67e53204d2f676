//! Endpoints: the places where one image may be asked for, in order, and why.

pub(crate) mod file;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod logins;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod registries;
pub(crate) mod route;
pub(crate) mod way;

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use towline_oci::Reference;

use crate::tls::Trust;
use crate::url::Origin;

/// The configuration that names mirrors, read again for every image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Trees of `hosts.toml` files as containerd reads them (`/etc/containerd/certs.d`); the first one that has a directory for the
    /// registry counts.
    pub hosts_dirs: Vec<PathBuf>,
    /// `registries.conf` as podman and CRI-O read it, with `registries.conf.d` beside it. A registry that it names counts before the
    /// trees.
    pub registries_conf: Option<PathBuf>,
}

/// One place where an image may be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The image as this place names it.
    pub(crate) reference: Reference,
    /// Scheme, host and port as configured; by the reference and what was learnt of it where nothing is.
    pub(crate) origin: Option<Origin>,
    /// Where the API begins: `/v2`.
    pub(crate) base: String,
    /// The registry that a mirror is told it stands for, as `ns=`.
    pub(crate) ns: Option<String>,
    /// Headers of every request to this place alone.
    pub(crate) headers: HeaderMap,
    /// Whether the image's login is meant for this place.
    pub(crate) may_login: bool,
    /// Whether tags are asked for here; digests are everywhere.
    pub(crate) resolves: bool,
    /// Whether anything is fetched here.
    pub(crate) pulls: bool,
    /// Whether plain HTTP is tried where there is no TLS.
    pub(crate) insecure: bool,
    /// Whom to trust there, and who this machine is to it.
    pub(crate) trust: Trust,
    /// How long opening a connection may take, where configured.
    pub(crate) connect: Option<Duration>,
    /// Whether this stands in for the image's own registry.
    pub(crate) mirror: bool,
    /// Why it is asked, for people.
    pub(crate) why: String,
    /// File and line that name it; empty where none does.
    pub(crate) from: String,
    /// What one might not expect.
    pub(crate) notes: Vec<String>,
}

impl Endpoint {
    /// The image's own registry, reached by the client's options.
    pub(crate) fn own(reference: &Reference) -> Self {
        Self {
            reference: reference.clone(),
            origin: None,
            base: "/v2".to_owned(),
            ns: None,
            headers: HeaderMap::new(),
            may_login: true,
            resolves: true,
            pulls: true,
            insecure: false,
            trust: Trust::default(),
            connect: None,
            mirror: false,
            why: String::new(),
            from: String::new(),
            notes: Vec::new(),
        }
    }

    /// Scheme, host, port and base; the scheme is the usual one where none is configured.
    pub(crate) fn shown(&self) -> String {
        match &self.origin {
            Some(origin) => format!("{origin}{}", self.base),
            None => format!("https://{}{}", self.reference.api_host(), self.base),
        }
    }
}
