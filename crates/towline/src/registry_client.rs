//! Options of every command that asks a registry, and the client they make.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::{StringValueParser, TypedValueParser as _};
use towline_distribution::{Client, Options, PlainHttp, Proxies, ProxyOptions, Resolver, Sources};
use towline_keyring::{Candidate, Credential, Origin, Secret};

use crate::exit::Usage;
use crate::logins::Logins;

/// Where mirrors are configured.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct MirrorArgs {
    /// Mirrors as containerd configures them: a tree of hosts.toml files, such as /etc/containerd/certs.d; repeatable
    #[arg(long, value_name = "DIR", env = "TOWLINE_HOSTS_DIR")]
    pub(crate) hosts_dir: Vec<PathBuf>,
    /// Mirrors as podman and CRI-O configure them, such as /etc/containers/registries.conf (with the folder registries.conf.d beside it)
    #[arg(long, value_name = "FILE", env = "TOWLINE_REGISTRIES_CONF")]
    pub(crate) registries_conf: Option<PathBuf>,
}

impl MirrorArgs {
    /// As the client wants them; relative paths are made whole, because a node outlives the folder it was started in.
    pub(crate) fn sources(&self) -> anyhow::Result<Sources> {
        let whole = |path: &PathBuf| {
            std::path::absolute(path)
                .with_context(|| format!("make the path {} absolute", path.display()))
        };
        let mut hosts_dirs = Vec::new();
        for directory in &self.hosts_dir {
            if !directory.is_dir() {
                let words = format!("--hosts-dir {} is not a folder", directory.display());
                return Err(anyhow::Error::new(Usage(words)));
            }
            hosts_dirs.push(whole(directory)?);
        }
        Ok(Sources {
            hosts_dirs,
            registries_conf: self.registries_conf.as_ref().map(whole).transpose()?,
        })
    }

    /// Whether the command line names a folder, and not the environment alone.
    #[cfg(feature = "node")]
    pub(crate) fn gives_hosts_dir(&self) -> bool {
        let everywhere = std::env::var_os("TOWLINE_HOSTS_DIR").map(PathBuf::from);
        !self.hosts_dir.is_empty() && self.hosts_dir.iter().ne(&everywhere)
    }

    /// Whether the command line names a file, and not the environment alone.
    #[cfg(feature = "node")]
    pub(crate) fn gives_registries_conf(&self) -> bool {
        let everywhere = std::env::var_os("TOWLINE_REGISTRIES_CONF").map(PathBuf::from);
        self.registries_conf.is_some() && self.registries_conf != everywhere
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hosts_dir.is_empty() && self.registries_conf.is_none()
    }
}

/// What stands on the way to registries.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WayArgs {
    /// Send logins also to the token services of this host, although it is outside the registry's own domain; repeatable
    #[arg(long, value_name = "HOST")]
    trust_realm: Vec<String>,
    /// Reach a registry (HOST or HOST:PORT) through a proxy of its own, whatever `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say, or through none
    /// (`direct`); repeatable. Where it is not given, the environment variable `TOWLINE_REGISTRY_PROXIES` counts, with commas between several,
    /// which keeps a proxy's password out of the process list
    // Read here and not by the parser of the command line, which would print what is wrong, and with it a password.
    #[arg(
        long,
        value_name = "HOST=URL",
        value_parser = StringValueParser::new().map(Secret::from)
    )]
    registry_proxy: Vec<Secret>,
}

/// The environment variable for [`WayArgs::proxies`].
const REGISTRY_PROXIES: &str = "TOWLINE_REGISTRY_PROXIES";

/// Reads a registry and its proxy; none where it is reached directly.
fn registry_proxy(text: &str) -> Option<(String, Option<Secret>)> {
    let (host, proxy) = text.split_once('=')?;
    if host.is_empty() || host.contains(['/', '@']) || proxy.is_empty() {
        return None;
    }
    let proxy = (proxy != "direct").then(|| Secret::new(proxy));
    Some((host.to_owned(), proxy))
}

impl WayArgs {
    /// Hosts that are trusted as token services.
    pub(crate) fn trusted_realms(&self) -> Vec<String> {
        self.trust_realm.clone()
    }

    /// The environment's proxies, and those of single registries.
    pub(crate) fn proxies(&self) -> anyhow::Result<Proxies> {
        let everywhere = std::env::var(REGISTRY_PROXIES).unwrap_or_default();
        let (from, texts): (_, Vec<&str>) = if self.registry_proxy.is_empty() {
            let texts = everywhere.split(',').filter(|text| !text.is_empty());
            (REGISTRY_PROXIES, texts.collect())
        } else {
            let texts = self.registry_proxy.iter().map(Secret::expose);
            ("--registry-proxy", texts.collect())
        };
        if texts.is_empty() {
            return Ok(Proxies::Environment);
        }
        let mut options = ProxyOptions::from_environment();
        for (at, text) in texts.iter().enumerate() {
            // The text itself may hold a password.
            let own = registry_proxy(text).ok_or_else(|| {
                let words = format!(
                    "{from}, entry {}: wanted HOST=URL or HOST=direct, as in registry.corp:5000=http://proxy.corp:3128",
                    at + 1
                );
                anyhow::Error::new(Usage(words))
            })?;
            options.registries.push(own);
        }
        Ok(Proxies::Given(options))
    }

    /// What the command line, and not the environment alone, says of it.
    #[cfg(feature = "node")]
    pub(crate) fn given(&self) -> [(&'static str, bool); 2] {
        [
            ("--trust-realm", !self.trust_realm.is_empty()),
            ("--registry-proxy", !self.registry_proxy.is_empty()),
        ]
    }

    /// The options that say the same again, without a proxy's login.
    #[cfg(feature = "node")]
    pub(crate) fn words(&self) -> Vec<(&'static str, String)> {
        let realms = self.trust_realm.iter();
        let realms = realms.map(|host| ("--trust-realm", host.clone()));
        let proxies = self.registry_proxy.iter();
        let proxies = proxies.map(|text| ("--registry-proxy", without_login(text.expose())));
        realms.chain(proxies).collect()
    }
}

/// A registry and its proxy, whose login is left to the person who has it.
#[cfg(feature = "node")]
fn without_login(text: &str) -> String {
    let Some((host, proxy)) = text.split_once('=') else {
        return "HOST=URL".to_owned();
    };
    let (scheme, rest) = proxy
        .split_once("://")
        .map_or(("", proxy), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{host}={scheme}{separator}USER:PASSWORD@{place}"),
        None => text.to_owned(),
    }
}

/// How to reach and enter a registry.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Speak plain HTTP to the registry (loopback registries do so anyway)
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Trust this certificate authority too (PEM); repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
    /// Name server to ask instead of the system's; repeatable
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) resolver: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) mirrors: MirrorArgs,
    #[command(flatten)]
    pub(crate) way: WayArgs,
    /// User and password for the registry (the environment variable keeps it out of the process list)
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "TOWLINE_CREDS",
        hide_env_values = true
    )]
    pub(crate) creds: Option<String>,
    /// Logins in the format of docker's config.json or podman's auth.json [default: where podman and docker keep theirs]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

impl RegistryArgs {
    /// Takes over what the node beside this kubeconfig was told, where the command line says nothing: its name servers, mirrors
    /// and certificate authorities.
    #[cfg(feature = "node")]
    pub(crate) fn beside(mut self, kubeconfig: &Path) -> Self {
        if let Some(facts) = kubeconfig.parent().and_then(towline_node::Facts::read) {
            if self.resolver.is_empty() {
                self.resolver = facts.resolver;
            }
            if self.ca.is_empty() {
                self.ca = facts.authorities;
            }
        }
        if self.mirrors.is_empty()
            && let Some(facts) = kubeconfig.parent().and_then(towline_node::Facts::read)
        {
            self.mirrors = MirrorArgs {
                hosts_dir: facts.hosts_dirs,
                registries_conf: facts.registries_conf,
            };
        }
        self
    }

    /// No node runs beside a program that was built without one.
    #[cfg(not(feature = "node"))]
    pub(crate) fn beside(self, _kubeconfig: &Path) -> Self {
        self
    }

    /// The options as the client wants them.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        let mut options = self.options_without_logins()?;
        if !self.mirrors.is_empty() {
            options.mirror_logins = Logins::read(self.authfile.as_deref())?.of_mirrors();
        }
        Ok(options)
    }

    /// The same, with the logins of mirrors left to whoever has read the files.
    pub(crate) fn options_without_logins(&self) -> anyhow::Result<Options> {
        let mut options = Options::default();
        if self.plain_http {
            options.plain_http = PlainHttp::All;
        }
        if !self.resolver.is_empty() {
            options.resolver = Resolver::Servers(self.resolver.clone());
        }
        options.endpoints = self.mirrors.sources()?;
        options.trusted_realms = self.way.trusted_realms();
        options.proxies = self.way.proxies()?;
        for file in &self.ca {
            let pem = std::fs::read(file)
                .with_context(|| format!("read the certificate authority {}", file.display()))?;
            options.extra_ca_pem.push(pem);
        }
        Ok(options)
    }

    /// A client with these options.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(self.options()?).context("make the registry client")
    }

    /// What `--creds` says.
    pub(crate) fn given(&self) -> anyhow::Result<Option<Credential>> {
        let Some(creds) = &self.creds else {
            return Ok(None);
        };
        let (user, password) = creds
            .split_once(':')
            .ok_or_else(|| anyhow::Error::new(Usage("--creds wants USER:PASSWORD".to_owned())))?;
        Ok(Some(Credential::basic(user, password)))
    }

    /// The credentials for an image: from the command line, else from the login file that was named, else from those of podman and docker. An
    /// entry that names a scheme is for that alone: where it matters, `client` asks the registry what it speaks, without a login.
    pub(crate) async fn candidates(
        &self,
        image: &str,
        client: &Client,
    ) -> anyhow::Result<Vec<Candidate>> {
        if let Some(credential) = self.given()? {
            return Ok(vec![Candidate {
                credential,
                origin: Origin::CommandLine,
            }]);
        }
        let Ok(reference) = towline_oci::Reference::parse(image) else {
            return Ok(Vec::new());
        };
        let logins = Logins::read(self.authfile.as_deref())?;
        let tls = logins.tls(client, &reference).await;
        Ok(logins.find_at(&reference, tls)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        way: WayArgs,
    }

    fn way(proxies: &[&str]) -> WayArgs {
        let options = proxies.iter().flat_map(|text| ["--registry-proxy", text]);
        Line::try_parse_from(["x"].into_iter().chain(options))
            .unwrap()
            .way
    }

    #[test]
    fn a_bad_proxy_is_told_without_its_password() {
        for bad in [
            "canary",
            "=http://u:canary@p:1",
            "http://u:canary@p:1=x",
            "r.io=",
        ] {
            let error = way(&["r.io=direct", bad]).proxies().unwrap_err();
            let words = format!("{error:#} {error:?}");
            assert!(
                words.contains("entry 2") && !words.contains("canary"),
                "{words}"
            );
            assert!(error.is::<Usage>());
        }
        assert!(!format!("{:?}", way(&["r.io=http://u:canary@p:1"])).contains("canary"));
    }

    #[test]
    fn a_comma_divides_in_the_environment_alone() {
        let Proxies::Given(options) = way(&["r.io=http://u:a,b@p:1"]).proxies().unwrap() else {
            panic!("it is given");
        };
        let [(host, Some(proxy))] = &options.registries[..] else {
            panic!("it is one");
        };
        assert_eq!(
            (host.as_str(), proxy.expose()),
            ("r.io", "http://u:a,b@p:1")
        );
    }

    #[cfg(feature = "node")]
    #[test]
    fn a_proxy_is_told_again_without_its_login() {
        for (text, want) in [
            ("r.io=http://p:1", "r.io=http://p:1"),
            ("r.io=direct", "r.io=direct"),
            ("r.io=http://u:p@ss@p:1", "r.io=http://USER:PASSWORD@p:1"),
            ("r.io=u:pass@p:1", "r.io=USER:PASSWORD@p:1"),
            ("canary", "HOST=URL"),
        ] {
            assert_eq!(without_login(text), want);
        }
    }
}
