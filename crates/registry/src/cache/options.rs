//! What a cache is told: its upstreams, and how long what it knows counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use towline_distribution::{Client, Options as ClientOptions, OptionsError, PlainHttp};
use towline_keyring::{Credential, Login, Logins};
use towline_oci::Reference;

use crate::names::Repository;

/// The largest file of logins that is read, in bytes.
const LOGINS_LIMIT: u64 = 1 << 20;

/// A registry that is cached, and the repositories here that stand for it.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its repositories are below this name here: `docker.io` makes `docker.io/library/nginx`. Empty: this registry
    /// is a cache of the upstream as a whole, and takes no pushes but below the prefixes of other upstreams.
    pub prefix: String,
    /// Host, and port where it is not the usual one, as in an image's name: `docker.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// A path below which the upstream's repositories are; mostly empty.
    pub path: String,
    /// Speaks plain HTTP to it. Loopback addresses are asked over plain HTTP anyway, unless they answer TLS.
    pub plain_http: bool,
    /// What it is offered when it asks for a login.
    pub credential: Credential,
    /// More certificate authorities that it may be known by, PEM.
    pub ca_pem: Vec<Vec<u8>>,
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It is not written as `PREFIX=URL`, a URL, or a host.
    #[error("{text:?} is no upstream: {why}")]
    Text {
        /// What was written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// Two upstreams have the same prefix.
    #[error("two upstreams have the prefix {prefix:?}")]
    Twice {
        /// The prefix.
        prefix: String,
    },
    /// A file with logins cannot be used.
    #[error("use the logins of {}: {why}", file.display())]
    Logins {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its client cannot be made.
    #[error("make the client of upstream {registry}")]
    Client {
        /// The upstream's host.
        registry: String,
        /// The reason.
        source: OptionsError,
    },
}

impl Upstream {
    /// Reads `PREFIX=URL`, or a URL or host alone, which is its own prefix. `*=URL` caches the upstream as a whole.
    pub fn parse(text: &str) -> Result<Self, UpstreamError> {
        let bad = |why: String| UpstreamError::Text {
            text: text.chars().take(200).collect(),
            why,
        };
        let (prefix, url) = match text.split_once('=') {
            Some((prefix, url)) => (Some(prefix), url),
            None => (None, text),
        };
        let (plain_http, rest) = match url.split_once("://") {
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some((scheme, _)) => return Err(bad(format!("{scheme} is not https or http"))),
            None => (false, url),
        };
        if rest.contains(['@', '?', '#']) {
            let why = "a login or query has no place in it; logins are in a file of their own";
            return Err(bad(why.to_owned()));
        }
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The name of Docker Hub and the host that speaks its API are the same place.
        let host = match host {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            host => host,
        };
        let upstream = Self {
            prefix: match prefix {
                Some("*") => String::new(),
                Some(prefix) => prefix.to_owned(),
                None => host
                    .replace([':', '[', ']'], "-")
                    .trim_matches('-')
                    .to_owned(),
            },
            registry: host.to_owned(),
            path: path.to_owned(),
            plain_http,
            credential: Credential::Anonymous,
            ca_pem: Vec::new(),
        };
        upstream.check().map_err(bad)?;
        Ok(upstream)
    }

    /// Takes its login from a file in the form of docker's `config.json`, if there is one in it.
    pub fn log_in(&mut self, file: &Path) -> Result<(), UpstreamError> {
        let bad = |why: String| UpstreamError::Logins {
            file: file.to_owned(),
            why,
        };
        let bytes = towline_sys::fs::read_bounded(file, LOGINS_LIMIT)
            .map_err(|error| bad(towline_sys::task::chain(&error)))?;
        let logins = Logins::parse(&bytes).map_err(|error| bad(error.to_string()))?;
        let Some(reference) = self.reference("probe", None) else {
            return Ok(());
        };
        match logins.find(&reference, file) {
            Login::Stored(found) => self.credential = found.credential,
            // A registry runs no programs.
            Login::Helper { helper, .. } => {
                let why = format!(
                    "the login for {} is in the helper {helper}, which is not asked",
                    self.registry
                );
                return Err(bad(why));
            }
            Login::None => {}
        }
        Ok(())
    }

    /// Whether prefix, host and path can stand in names; what is wrong otherwise.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.prefix.is_empty() {
            Repository::parse(&self.prefix).map_err(|error| format!("the prefix: {error}"))?;
        }
        let reference = self.reference("probe", None);
        match reference {
            Some(reference) if reference.registry() == self.registry => Ok(()),
            _ => Err(format!("{:?} is not a registry's host", self.registry)),
        }
    }

    /// The upstream's own name for a repository, with a tag where one is asked for.
    pub(crate) fn reference(&self, repository: &str, tag: Option<&str>) -> Option<Reference> {
        let mut text = self.registry.clone();
        for part in [self.path.as_str(), repository] {
            if !part.is_empty() {
                text.push('/');
                text.push_str(part);
            }
        }
        if let Some(tag) = tag {
            text.push(':');
            text.push_str(tag);
        }
        Reference::parse(&text).ok()
    }

    /// The client that asks it.
    pub(crate) fn client(&self) -> Result<Client, UpstreamError> {
        let plain_http = if self.plain_http {
            PlainHttp::Hosts(vec![self.registry.clone()])
        } else {
            PlainHttp::Loopback
        };
        let options = ClientOptions {
            plain_http,
            extra_ca_pem: self.ca_pem.clone(),
            user_agent: concat!("towline-cache/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ClientOptions::default()
        };
        Client::new(options).map_err(|source| UpstreamError::Client {
            registry: self.registry.clone(),
            source,
        })
    }
}

/// The upstreams, and how long what is known of them counts.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// The registries that are cached; none makes this a registry of its own alone.
    pub upstreams: Vec<Upstream>,
    /// How long a tag counts before the upstream is asked whether it moved.
    pub tag_ttl: Duration,
    /// How long an upstream's "there is no such thing" counts.
    pub absent_ttl: Duration,
    /// How long an upstream that failed is left alone; one that says how long (`Retry-After`) is believed, up to ten minutes.
    pub failure_ttl: Duration,
    /// How long an upstream may take to say whether a tag moved, where an older copy can be served instead.
    pub patience: Duration,
    /// Downloads from one upstream at once.
    pub downloads: usize,
    /// Bytes of upstreams' content that are kept; what was used longest ago makes room. As many as quota and disk allow, if not said.
    pub size: Option<u64>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            tag_ttl: Duration::from_secs(60),
            absent_ttl: Duration::from_secs(10),
            failure_ttl: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            downloads: 32,
            size: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_read_from_text() {
        for (text, prefix, registry, path, plain_http) in [
            ("docker.io", "docker.io", "docker.io", "", false),
            (
                "hub=https://registry-1.docker.io/",
                "hub",
                "docker.io",
                "",
                false,
            ),
            (
                "a/b=http://127.0.0.1:5000",
                "a/b",
                "127.0.0.1:5000",
                "",
                true,
            ),
            (
                "127.0.0.1:5000",
                "127.0.0.1-5000",
                "127.0.0.1:5000",
                "",
                false,
            ),
            ("*=https://ghcr.io/team/x", "", "ghcr.io", "team/x", false),
        ] {
            let read = Upstream::parse(text).unwrap();
            assert_eq!(
                (
                    read.prefix.as_str(),
                    read.registry.as_str(),
                    read.path.as_str(),
                    read.plain_http
                ),
                (prefix, registry, path, plain_http),
                "{text}"
            );
        }
        for text in [
            "",
            "A=https://ghcr.io",
            "x=ftp://ghcr.io",
            "x=https://u:p@ghcr.io",
            "x=https://a b",
            "=ghcr.io/?x",
            "x=",
            "nohost",
        ] {
            assert!(Upstream::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_the_upstreams_own() {
        let hub = Upstream::parse("docker.io").unwrap();
        assert_eq!(
            hub.reference("nginx", Some("1")).unwrap().to_string(),
            "docker.io/library/nginx:1"
        );
        let team = Upstream::parse("t=ghcr.io/team").unwrap();
        assert_eq!(
            team.reference("app", None).unwrap().to_string(),
            "ghcr.io/team/app"
        );
    }
}
