//! Options of every command that asks a registry, and the client they make.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
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
    /// (`direct`); repeatable. The environment variable, with commas, keeps a proxy's password out of the process list
    #[arg(
        long,
        value_name = "HOST=URL",
        env = "TOWLINE_REGISTRY_PROXIES",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = registry_proxy
    )]
    registry_proxy: Vec<RegistryProxy>,
}

/// A registry and its proxy; none where it is reached directly.
#[derive(Debug, Clone)]
struct RegistryProxy(String, Option<Secret>);

fn registry_proxy(text: &str) -> Result<RegistryProxy, &'static str> {
    // The text itself may hold a password.
    let wrong = "wanted HOST=URL or HOST=direct, as in registry.corp:5000=http://proxy.corp:3128";
    let (host, proxy) = text.split_once('=').ok_or(wrong)?;
    if host.is_empty() || host.contains('/') || proxy.is_empty() {
        return Err(wrong);
    }
    let proxy = (proxy != "direct").then(|| Secret::new(proxy));
    Ok(RegistryProxy(host.to_owned(), proxy))
}

impl WayArgs {
    /// Hosts that are trusted as token services.
    pub(crate) fn trusted_realms(&self) -> Vec<String> {
        self.trust_realm.clone()
    }

    /// The environment's proxies, and those of single registries.
    pub(crate) fn proxies(&self) -> Proxies {
        if self.registry_proxy.is_empty() {
            return Proxies::Environment;
        }
        let mut options = ProxyOptions::from_environment();
        let own = self.registry_proxy.iter().cloned();
        options.registries = own
            .map(|RegistryProxy(host, proxy)| (host, proxy))
            .collect();
        Proxies::Given(options)
    }

    /// Whether the command line says anything of it.
    #[cfg(feature = "node")]
    pub(crate) fn is_given(&self) -> bool {
        let everywhere = std::env::var_os("TOWLINE_REGISTRY_PROXIES").is_some();
        !self.trust_realm.is_empty() || (!self.registry_proxy.is_empty() && !everywhere)
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
        options.proxies = self.way.proxies();
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

    /// The credentials for an image: from the command line, else from the login file that was named, else from those of podman and docker.
    pub(crate) fn candidates(&self, image: &str) -> anyhow::Result<Vec<Candidate>> {
        if let Some(credential) = self.given()? {
            return Ok(vec![Candidate {
                credential,
                origin: Origin::CommandLine,
            }]);
        }
        let Ok(reference) = towline_oci::Reference::parse(image) else {
            return Ok(Vec::new());
        };
        let found = Logins::read(self.authfile.as_deref())?.find(&reference)?;
        Ok(found.into_iter().collect())
    }
}
