//! The registry of a scenario as data: how it is named, reached, entered, and what it does wrong.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::faults::Rule;
use crate::gate::Manner;
use crate::tls::Flaw;
use crate::token::Behaviour;

/// A registry of a scenario's own, in front of the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Host {
    /// Its name; `<scenario>.lab.test` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Images name it by its address, and it speaks plain HTTP.
    pub by_address: bool,
    /// It speaks TLS although images name it by its address.
    pub https: bool,
    /// What the name server says of its name.
    pub dns: Dns,
    /// Whether anything answers there.
    pub listens: Listens,
    /// How it speaks TLS.
    pub tls: Tls,
    /// Who may pull.
    pub access: Access,
    /// What it does wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The proxy that the node was told to use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// What the node's files say of the way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// Its mirror, whose name is `mirror.` and its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Box<Self>>,
}

/// The proxy of a registry, whose name is `proxy.` and the registry's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proxy {
    /// One that does so.
    Runs(Manner),
    /// One that lets connections through and puts a certificate of its own in front of every registry.
    Intercepts,
    /// One that does not run.
    Nobody,
    /// One whose name does not exist.
    NoName,
}

/// A file of the node. `{name}` stands for the registry's name and `{mirror}` for its mirror's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// `hosts.toml` of the registry, as containerd reads it.
    Hosts(String),
    /// A file of `registries.conf.d`, as podman and CRI-O read it.
    Registries(String),
}

/// What the name server says of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Dns {
    /// Where it is.
    #[default]
    Right,
    /// That the name does not exist.
    NxDomain,
    /// That it could not find out.
    ServFail,
    /// That it refuses to say.
    Refused,
    /// Nothing.
    Timeout,
    /// Bytes that are no answer.
    Garbage,
    /// That the name exists and has no address.
    Empty,
    /// These addresses.
    Elsewhere(Vec<IpAddr>),
}

/// Whether anything answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Listens {
    /// A registry does.
    #[default]
    Serves,
    /// Nobody listens.
    Nobody,
    /// Connections are taken, and nothing is ever said.
    Silent,
    /// Connections are not even taken, as behind a firewall that drops.
    Filtered,
    /// A registry does, behind a path that loses large packets.
    Narrow,
}

/// How a host speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tls {
    /// With a certificate of the lab's authority, which the node trusts, and this flaw.
    Certificate(Flaw),
    /// With a certificate of an authority that the node does not trust.
    Stranger,
    /// Only with clients that have a certificate.
    ClientCertificate,
    /// It refuses every handshake.
    Refuses,
    /// Not at all: plain HTTP.
    Plain,
}

impl Default for Tls {
    fn default() -> Self {
        Self::Certificate(Flaw::None)
    }
}

/// Who may pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Anyone.
    #[default]
    Open,
    /// Those who log in.
    Login,
    /// Those who have a token of this service, which gives one to those who log in.
    Token(TokenService),
}

/// A token service on the same host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenService {
    /// How it behaves.
    pub behaviour: Behaviour,
    /// It gives tokens for pulling to anyone.
    pub open: bool,
    /// The URL to which the registry sends its clients, where that is a wrong one; `{name}` stands for the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
}

impl Host {
    pub(crate) fn dns(dns: Dns) -> Self {
        Self {
            dns,
            ..Self::default()
        }
    }

    pub(crate) fn listens(listens: Listens) -> Self {
        Self {
            listens,
            ..Self::default()
        }
    }

    pub(crate) fn tls(tls: Tls) -> Self {
        Self {
            tls,
            ..Self::default()
        }
    }

    pub(crate) fn login() -> Self {
        Self {
            access: Access::Login,
            ..Self::default()
        }
    }

    pub(crate) fn token(service: TokenService) -> Self {
        Self {
            access: Access::Token(service),
            ..Self::default()
        }
    }

    pub(crate) fn rules(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        let name = Some(name.to_owned());
        Self { name, ..self }
    }

    pub(crate) fn proxy(proxy: Proxy) -> Self {
        Self {
            proxy: Some(proxy),
            ..Self::default()
        }
    }

    pub(crate) fn told(told: Told) -> Self {
        Self {
            told: Some(told),
            ..Self::default()
        }
    }

    /// Every pull of the node goes to this mirror and nowhere else.
    pub(crate) fn behind(mirror: Self) -> Self {
        let hosts = "server = \"https://{mirror}\"\n".to_owned();
        Self {
            mirror: Some(Box::new(mirror)),
            ..Self::told(Told::Hosts(hosts))
        }
    }

    /// The same host with nothing wrong. A file of the node that names no mirror is what was wrong.
    #[must_use]
    pub fn healthy(&self) -> Self {
        let access = match &self.access {
            Access::Token(service) => Access::Token(TokenService {
                open: service.open,
                ..TokenService::default()
            }),
            other => other.clone(),
        };
        Self {
            name: self.name.clone(),
            by_address: self.by_address,
            https: self.https,
            access,
            proxy: self.proxy.map(|_| Proxy::Runs(Manner::LetsThrough)),
            told: self.told.clone().filter(|_| self.mirror.is_some()),
            mirror: self
                .mirror
                .as_ref()
                .map(|mirror| Box::new(mirror.healthy())),
            ..Self::default()
        }
    }
}
