//! The plan for one image: which endpoints, in which order, and why.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use towline_cause::{Cause, Failure, Step};
use towline_oci::Reference;

use super::file::ConfigError;
use super::hosts::{self, Host};
use super::registries::{self, From, Registry};
use super::{Endpoint, Sources};
use crate::tls::Trust;
use crate::url::{Origin, Scheme, Url};

/// An endpoint that is configured and takes no part.
#[derive(Debug, Clone)]
pub(crate) struct Skipped {
    pub(crate) place: String,
    pub(crate) why: String,
}

/// Endpoints in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The node's configuration blocks the registry.
    #[error("{image} is blocked: {by} says so for {prefix}")]
    Blocked {
        /// The image.
        image: String,
        /// Where it is said.
        by: String,
        /// The prefix that matched.
        prefix: String,
    },
}

impl PlanError {
    /// The cause of a pull that cannot begin because of this.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Config(_) => Cause::RuntimeMisconfigured,
            Self::Blocked { .. } => Cause::RegistryBlocked,
        }
    }

    /// The failure of a pull that cannot begin because of this.
    pub fn failure(&self) -> Failure {
        Failure::new(self.cause(), Step::Reference, self.to_string())
    }
}

/// Reads the configuration and makes the plan.
pub(crate) fn plan(sources: &Sources, reference: &Reference) -> Result<Planned, PlanError> {
    if let Some(path) = &sources.registries_conf {
        let found = registries::read(path)?;
        let name = reference.clone().with_default_tag().to_string();
        if let Some((registry, length)) = registries::choose(&found, &name) {
            return of_registry(registry, length, &name, reference);
        }
    }
    if let Some(found) = hosts::find(&sources.hosts_dirs, reference.registry())? {
        return Ok(of_hosts(&found, reference)?);
    }
    let mut own = Endpoint::own(reference);
    "the image's own registry; nothing is configured for it".clone_into(&mut own.why);
    Ok(Planned {
        endpoints: vec![own],
        skipped: Vec::new(),
    })
}

fn of_hosts(found: &hosts::Hosts, reference: &Reference) -> Result<Planned, ConfigError> {
    let mut planned = Planned::default();
    for host in &found.mirrors {
        if let Some(url) = &host.url {
            planned.add(of_host(host, url, &found.path, reference)?);
        }
    }
    let server = &found.server;
    let mut last = if let Some(url) = &server.url {
        of_host(server, url, &found.path, reference)?
    } else {
        let mut own = Endpoint::own(reference);
        server.settle(&mut own, &found.path)?;
        own
    };
    last.mirror = false;
    last.why = if server.url.is_none() && found.path.exists() {
        format!(
            "the image's own registry, asked last: {} names no server",
            found.path.display()
        )
    } else if server.url.is_none() {
        format!(
            "the image's own registry, with the certificates of {}",
            found.path.parent().unwrap_or(&found.path).display()
        )
    } else if last.may_login {
        format!("the server that {} names, asked last", server.place)
    } else {
        format!(
            "the server that {} names instead of {}, which is not asked itself",
            server.place,
            reference.registry()
        )
    };
    planned.add(last);
    Ok(planned)
}

impl Planned {
    fn add(&mut self, endpoint: Endpoint) {
        if endpoint.pulls {
            self.endpoints.push(endpoint);
        } else {
            self.skipped.push(Skipped {
                place: endpoint.shown(),
                why: format!("{} gives it no capability \"pull\"", endpoint.from),
            });
        }
    }
}

impl Host {
    /// Takes everything but the address over.
    fn settle(&self, endpoint: &mut Endpoint, file: &std::path::Path) -> Result<(), ConfigError> {
        endpoint.from = self.place.to_string();
        endpoint.pulls = self.pull;
        endpoint.resolves = self.resolve;
        endpoint.headers.clone_from(&self.headers);
        endpoint.connect = self.connect;
        endpoint.trust = self.trust(file)?;
        Ok(())
    }
}

fn of_host(
    host: &Host,
    url: &Url,
    file: &std::path::Path,
    reference: &Reference,
) -> Result<Endpoint, ConfigError> {
    let mut endpoint = Endpoint::own(reference);
    host.settle(&mut endpoint, file)?;
    endpoint.base = if host.override_path {
        url.path.clone()
    } else {
        format!("{}/v2", url.path)
    };
    let same = is_own(&url.origin, reference);
    endpoint.mirror = !same;
    endpoint.may_login = same;
    endpoint.ns = (!same).then(|| reference.registry().to_owned());
    if url.origin.scheme == Scheme::Http && !endpoint.trust.is_default() {
        endpoint.notes.push(
            "its TLS settings have no effect: the URL is plain HTTP (containerd would try HTTPS first)".to_owned(),
        );
        endpoint.trust = Trust::default();
    }
    endpoint.origin = Some(url.origin.clone());
    endpoint.why = format!("a mirror of {} by {}", reference.registry(), host.place);
    Ok(endpoint)
}

/// Whether an origin is the registry that the reference names: its login is for this host and port.
fn is_own(origin: &Origin, reference: &Reference) -> bool {
    [Scheme::Https, Scheme::Http].into_iter().any(|scheme| {
        Origin::of_authority(scheme, reference.api_host())
            .is_ok_and(|own| own.host == origin.host && own.port == origin.port)
    })
}

fn of_registry(
    registry: &Registry,
    length: usize,
    name: &str,
    reference: &Reference,
) -> Result<Planned, PlanError> {
    if registry.blocked {
        return Err(PlanError::Blocked {
            image: name.to_owned(),
            by: registry.place.to_string(),
            prefix: registry.prefix.clone(),
        });
    }
    let mut planned = Planned::default();
    let mut add = |location: &str, insecure: bool, mirror: bool, from: &str, why: String| {
        let rewritten = registries::rewrite(name, length, location).ok_or_else(|| {
            ConfigError::whole(
                &PathBuf::from(from),
                format!(
                    "{location} in the place of {} makes no image name of {name}",
                    registry.prefix
                ),
            )
        })?;
        let mut endpoint = Endpoint::own(&rewritten);
        endpoint.mirror = mirror;
        endpoint.insecure = insecure;
        endpoint.trust.skip_verify = insecure;
        endpoint.may_login = rewritten.registry() == reference.registry();
        from.clone_into(&mut endpoint.from);
        endpoint.why = why;
        planned.endpoints.push(endpoint);
        Ok::<(), ConfigError>(())
    };
    let mut skipped = Vec::new();
    for mirror in &registry.mirrors {
        let place = mirror.place.to_string();
        let reason = match (mirror.from, reference.digest().is_some()) {
            (From::DigestOnly, false) => Some("for digests alone, and the image is named by a tag"),
            (From::TagOnly, true) => Some("for tags alone, and the image is named by a digest"),
            _ => None,
        };
        if let Some(reason) = reason {
            skipped.push(Skipped {
                place: mirror.location.clone(),
                why: format!("{place} has it {reason}"),
            });
            continue;
        }
        let why = format!("a mirror of {} by {place}", registry.prefix);
        add(&mirror.location, mirror.insecure, true, &place, why)?;
    }
    let place = registry.place.to_string();
    let why = if registry.location.is_empty() || registry.location == registry.prefix {
        format!("the image's own registry, by {place}")
    } else {
        format!(
            "{} stands for {} by {place}",
            registry.location, registry.prefix
        )
    };
    add(&registry.location, registry.insecure, false, &place, why)?;
    planned.skipped = skipped;
    Ok(planned)
}

/// A plan as it is told: JSON, version `towline.dev/v1`, kind `Endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `towline.dev/v1`.
    pub api_version: String,
    /// `Endpoints`.
    pub kind: String,
    /// The image, in full.
    pub image: String,
    /// Who is asked, in order.
    pub endpoints: Vec<PlannedEndpoint>,
    /// What is configured and takes no part.
    pub skipped: Vec<SkippedEndpoint>,
}

/// One endpoint of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedEndpoint {
    /// Scheme, host, port and where the API begins.
    pub url: String,
    /// What is asked for there first.
    pub manifest: String,
    /// Why it is in the plan.
    pub why: String,
    /// Whether it stands in for the image's own registry.
    pub mirror: bool,
    /// Whether it is asked for tags; digests are asked everywhere.
    pub resolves_tags: bool,
    /// Whether the image's login is offered there.
    pub login: bool,
    /// Who it is asked as, where a login is stored for the place itself; never the login's value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own_login: Option<String>,
    /// Whether any certificate is taken.
    pub skip_verify: bool,
    /// Extra certificate authorities.
    pub authorities: usize,
    /// Whether a client certificate is shown.
    pub client_certificate: bool,
    /// Names of the headers that are sent, never their values.
    pub headers: Vec<String>,
    /// Longest time for opening a connection, in milliseconds, where configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dial_timeout_millis: Option<u64>,
    /// The proxy on the way, without its login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proxy: Option<String>,
    /// What one might not expect.
    pub notes: Vec<String>,
}

/// An endpoint that is configured and takes no part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedEndpoint {
    /// As it is configured.
    pub url: String,
    /// Why it is not asked.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn places(planned: &Planned) -> Vec<String> {
        planned
            .endpoints
            .iter()
            .map(|endpoint| {
                let login = if endpoint.may_login { " login" } else { "" };
                let ns = endpoint
                    .ns
                    .as_deref()
                    .map_or(String::new(), |ns| format!(" ns={ns}"));
                format!("{}{ns}{login}", endpoint.shown())
            })
            .collect()
    }

    fn hosts(text: &str, image: &str) -> Vec<String> {
        let found = hosts::parse(Path::new("/nowhere/hosts.toml"), text).unwrap();
        places(&of_hosts(&found, &Reference::parse(image).unwrap()).unwrap())
    }

    #[test]
    fn mirrors_first_and_the_registry_last() {
        let mirror =
            "[host.\"http://m:5000\"]\n[host.\"https://h/v2/hub\"]\noverride_path = true\n";
        assert_eq!(
            hosts(mirror, "nginx"),
            [
                "http://m:5000/v2 ns=docker.io",
                "https://h/v2/hub ns=docker.io",
                "https://registry-1.docker.io/v2 login"
            ]
        );
        let server = "server = \"https://registry-1.docker.io\"\n";
        assert_eq!(
            hosts(server, "nginx"),
            ["https://registry-1.docker.io/v2 login"]
        );
        let elsewhere = "server = \"https://m/x\"\n";
        assert_eq!(hosts(elsewhere, "nginx"), ["https://m/x/v2 ns=docker.io"]);
        let push = "[host.\"https://m\"]\ncapabilities = [\"push\"]";
        assert_eq!(
            hosts(push, "r.corp:5000/a"),
            ["https://r.corp:5000/v2 login"]
        );
        let own = "server = \"http://r.corp:5000\"";
        assert_eq!(hosts(own, "r.corp:5000/a"), ["http://r.corp:5000/v2 login"]);
    }

    fn registries(text: &str, image: &str) -> Result<Vec<String>, PlanError> {
        let found = registries::parse(Path::new("r.conf"), text)?;
        let reference = Reference::parse(image).unwrap();
        let name = reference.clone().with_default_tag().to_string();
        let (registry, length) = registries::choose(&found, &name).unwrap();
        of_registry(registry, length, &name, &reference).map(|planned| {
            planned
                .endpoints
                .iter()
                .map(|endpoint| {
                    let login = if endpoint.may_login { " login" } else { "" };
                    format!("{}{login}", endpoint.reference)
                })
                .collect()
        })
    }

    #[test]
    fn registries_are_rewritten_and_blocked() {
        let text = "[[registry]]\nprefix=\"docker.io/library\"\nlocation=\"c.corp/hub\"\n[[registry.mirror]]\nlocation=\"m.corp\"\npull-from-mirror=\"digest-only\"\n[[registry.mirror]]\nlocation=\"n.corp:5000/x\"\n[[registry]]\nlocation=\"docker.io\"\n[[registry]]\nprefix=\"docker.io/evil\"\nblocked=true\n";
        assert_eq!(
            registries(text, "nginx:1").unwrap(),
            ["n.corp:5000/x/nginx:1", "c.corp/hub/nginx:1"]
        );
        assert_eq!(
            registries(text, "team/app:1").unwrap(),
            ["docker.io/team/app:1 login"]
        );
        let blocked = registries(text, "evil/app:1").unwrap_err();
        assert_eq!(blocked.cause(), Cause::RegistryBlocked);
        assert_eq!(
            blocked.to_string(),
            "docker.io/evil/app:1 is blocked: r.conf:12 says so for docker.io/evil"
        );
    }
}
