//! `towline registry`: the registry alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use towline_registry::access::{Access, Rule, Users, Who};
use towline_registry::{Handle, Options, Service, Tls, Upstream};

use crate::exit::{OK, Usage};
use crate::output;

#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The directory that it owns
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/registry")]
    root: PathBuf,
    #[command(flatten)]
    shared: super::shared::SharedArgs,
    /// Only serve what another registry writes to the storage that it shares
    #[arg(long, requires = "storage")]
    reader: bool,
    /// How others are told to reach this registry as the writer; the address that it listens on, unless said
    #[arg(long, value_name = "HOST:PORT", requires = "storage")]
    advertise: Option<String>,
    /// A YAML file with users, rules and limits, read again on SIGHUP and when it changes; see docs/registry.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Users and their bcrypt hashes, as `htpasswd -B` writes them: they may do everything, others nothing
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Repositories that anyone may pull although there is a login, such as `public/*`; repeatable
    #[arg(long, value_name = "PATTERN", requires = "htpasswd")]
    anonymous_pull: Vec<String>,
    /// Certificate chain (PEM), to speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen beyond loopback although anyone may push
    #[arg(long)]
    open_beyond_loopback: bool,
    /// Take no changes
    #[arg(long)]
    read_only: bool,
    /// Show people no web page
    #[arg(long)]
    no_web: bool,
    /// Take images of which layers or platforms are missing, such as a mirror of one platform; a pull of what is missing fails
    #[arg(long, conflicts_with = "read_only")]
    sparse: bool,
    /// Cache another registry: its images are below PREFIX here, fetched when they are asked for. PREFIX is the host unless given;
    /// `*` makes the whole registry a cache of this one. Repeatable; see docs/cache.md
    #[arg(long, value_name = "[PREFIX=]URL")]
    upstream: Vec<String>,
    /// Logins for the upstreams, in the format of docker's config.json
    #[arg(long, value_name = "FILE", requires = "upstream")]
    upstream_logins: Option<PathBuf>,
    /// Keep at most so much of the upstreams' content, such as `50GiB`; what was used longest ago makes room
    #[arg(long, value_name = "SIZE", requires = "upstream", value_parser = towline_registry::parse_size)]
    cache_size: Option<u64>,
    /// Append one JSON line for each request to this file
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
}

impl ServeArgs {
    fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::new(&self.root);
        options.listen = vec![self.listen];
        options.config.clone_from(&self.config);
        options.open_beyond_loopback = self.open_beyond_loopback;
        options.read_only = self.read_only;
        options.storage = self.shared.serve(self.reader, self.advertise.as_ref())?;
        options.web = !self.no_web;
        options.sparse = self.sparse;
        options.access_log.clone_from(&self.access_log);
        for text in &self.upstream {
            let mut upstream = Upstream::parse(text)
                .map_err(|error| anyhow::Error::new(Usage(error.to_string())))?;
            if let Some(file) = &self.upstream_logins {
                upstream.log_in(file)?;
            }
            options.cache.upstreams.push(upstream);
        }
        options.cache.size = self.cache_size;
        if let Some(file) = &self.htpasswd {
            options.access = access(file, &self.anonymous_pull)?;
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let read = |file: &PathBuf| {
                std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
            };
            options.tls = Some(Tls {
                certificate_pem: read(cert)?,
                key_pem: read(key)?.into(),
            });
        }
        Ok(options)
    }
}

fn access(file: &PathBuf, anonymous: &[String]) -> anyhow::Result<Access> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the users of {}", file.display()))?;
    let users = Users::from_htpasswd(&text)
        .with_context(|| format!("read the users of {}", file.display()))?;
    if users.is_empty() {
        return Err(anyhow::Error::new(Usage(format!(
            "{} names no user",
            file.display()
        ))));
    }
    let mut access = Access::private(users);
    let rules = anonymous
        .iter()
        .map(|pattern| Rule::new(pattern, Who::Anyone, Who::AnyUser));
    access.rules.splice(0..0, rules);
    Ok(access)
}

/// Reads the configuration again on each SIGHUP, until the process is told to end.
async fn reload_until_told(handle: &Handle) -> anyhow::Result<()> {
    let mut hang_up = signal(SignalKind::hangup()).context("listen for signals")?;
    let told = crate::commands::until_told();
    tokio::pin!(told);
    loop {
        tokio::select! {
            told = &mut told => return Ok(told?),
            _ = hang_up.recv() => match handle.reload().await {
                Ok(()) => output::note("the configuration was read again"),
                Err(error) => output::note(format!(
                    "{:#}; the one before stays in use",
                    anyhow::Error::new(error)
                )),
            },
        }
    }
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let handle = Service::start(args.options()?)
        .await
        .context("start the registry")?;
    let scheme = if handle.is_tls() { "https" } else { "http" };
    output::note(format!(
        "registry listens on {scheme}://{}, keeps its data in {}",
        handle.local_addr(),
        args.shared
            .place()
            .unwrap_or_else(|| args.root.display().to_string())
    ));
    reload_until_told(&handle).await?;
    output::note("stopping");
    for request in handle.drain().await {
        output::note(format!("cut: {request}"));
    }
    Ok(ExitCode::from(OK))
}
