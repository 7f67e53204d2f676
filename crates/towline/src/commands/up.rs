//! `towline up`: the node, and its pods as they go.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use towline_node::{Handle, Options, Service};

use crate::ceilings::CeilingArgs;
use crate::commands::{Told, apply};
use crate::exit::{BROKEN, OK, hinted};
use crate::image_gc::ImageGcArgs;
use crate::output::{self, BOLD, styled};
use crate::pods_view::{self, Row};
use crate::registry_client::{MirrorArgs, WayArgs};
use crate::spools::SpoolArgs;
use crate::{cli, manifests};

/// How long stopping may take, pods included: somebody waits at a terminal.
const STOP: Duration = Duration::from_secs(5);

/// Run a whole node on this machine: registry, API server, controllers, scheduler, kubelet, runtime
///
/// Applies the manifests given and shows the pods until Ctrl-C, which stops everything; what is in the data directory stays for the
/// next `up`. Needs root.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Manifests to apply once the node is ready (files, folders, `-`)
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the node keeps what it has
    #[arg(long, value_name = "DIR", default_value = cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Write the kubeconfig here too (it is always in the data directory)
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of the node in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Where the API server listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6443")]
    api_listen: SocketAddr,
    /// Where the registry listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5000")]
    registry_listen: SocketAddr,
    /// Where the kubelet's endpoint listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10250")]
    kubelet_listen: SocketAddr,
    /// Name server for registry names, instead of the system's; repeatable
    #[arg(long, value_name = "IP:PORT")]
    resolver: Vec<SocketAddr>,
    /// Trust this certificate authority for registries too (PEM); repeatable
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    #[command(flatten)]
    mirrors: MirrorArgs,
    #[command(flatten)]
    way: WayArgs,
    #[command(flatten)]
    image_gc: ImageGcArgs,
    #[command(flatten)]
    ceilings: CeilingArgs,
    #[command(flatten)]
    spools: SpoolArgs,
    /// Add nothing to what Kubernetes itself writes: no annotation, no condition
    #[arg(long)]
    kubernetes_exact: bool,
}

impl Args {
    fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::new(&self.data_dir);
        options.api_listen = self.api_listen;
        options.registry_listen = self.registry_listen;
        options.kubelet_listen = self.kubelet_listen;
        options.resolver.clone_from(&self.resolver);
        options.endpoints = self.mirrors.sources()?;
        options.proxies = self.way.proxies()?;
        options.trusted_realms = self.way.trusted_realms();
        options.image_gc = self.image_gc.rules()?;
        options.ceilings = self.ceilings.ceilings()?;
        options.store = self.spools.rules();
        options.keep_blobs = self.spools.keep_blobs();
        options.kubernetes_exact = self.kubernetes_exact;
        options.kubeconfig.clone_from(&self.kubeconfig);
        if let Some(name) = &self.node_name {
            options.node_name.clone_from(name);
        }
        for file in &self.ca {
            let pem = std::fs::read(file)
                .with_context(|| format!("read the certificate authority {}", file.display()))?;
            options.extra_ca_pem.push(pem);
        }
        Ok(options)
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    need_root("up")?;
    let objects = manifests::read(&args.files)?;
    let started = Instant::now();
    let mut signal = Told::listen().context("listen for signals")?;
    let starting = Box::pin(Service::start(args.options()?));
    let handle = signal.while_starting("the node", starting).await?;
    let handle = handle.context("start the node")?;
    introduce(&handle, started.elapsed());
    let applied = apply_all(&handle, objects).await;
    if let Err(error) = &applied {
        output::error(error);
    }
    let end = show(&handle, &mut signal).await;
    output::note("stopping");
    let stopped = stop(handle, STOP, &mut signal).await;
    end?;
    if stopped.is_empty() && applied.is_ok() {
        return Ok(ExitCode::from(OK));
    }
    for left in stopped {
        output::note(format!("did not stop in time: {left}"));
    }
    Ok(ExitCode::from(BROKEN))
}

/// Containers need root; says how to get it.
pub(crate) fn need_root(command: &str) -> anyhow::Result<()> {
    if towline_node::is_root() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_or_else(|_| "towline".to_owned(), |path| path.display().to_string());
    let rest: Vec<String> = std::env::args().skip(1).collect();
    Err(hinted(
        format!("`towline {command}` needs root: it makes namespaces, mounts and cgroups"),
        format!("sudo {program} {}", rest.join(" ")),
    ))
}

fn introduce(handle: &Handle, took: Duration) {
    let facts = handle.facts();
    output::note(format!(
        "node {} is ready after {:.1} s",
        facts.node,
        took.as_secs_f64()
    ));
    output::note(format!("  API server   https://{}", facts.api));
    output::note(format!("  registry     http://{}", facts.registry));
    output::note(format!("  kubelet      https://{}", facts.kubelet));
    output::note(format!("  CRI          unix://{}", facts.cri.display()));
    output::note(format!(
        "  {}",
        styled(
            BOLD,
            format!("export KUBECONFIG={}", handle.kubeconfig().display())
        )
    ));
}

async fn apply_all(handle: &Handle, objects: Vec<manifests::Manifest>) -> anyhow::Result<()> {
    for manifest in objects {
        output::note(apply::apply(&handle.kube(), "default", manifest).await?);
    }
    Ok(())
}

/// Shows pods until a signal comes, or a component ends.
async fn show(handle: &Handle, signal: &mut Told) -> anyhow::Result<()> {
    let mut pods = Pods::default();
    let events = watcher(Api::<Pod>::all(handle.kube()), watcher::Config::default());
    let mut events = std::pin::pin!(events);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = signal.wait() => return Ok(()),
            why = handle.ended() => return Err(anyhow::anyhow!("a part of the node ended: {why}")),
            Some(event) = events.next() => if let Ok(event) = event { pods.take(event)? },
            _ = tick.tick() => pods.redraw()?,
        }
    }
}

/// The pods of the cluster, and how they were last shown.
#[derive(Default)]
struct Pods {
    known: BTreeMap<String, Pod>,
    shown: BTreeMap<String, Row>,
    drawn: usize,
}

impl Pods {
    fn take(&mut self, event: watcher::Event<Pod>) -> std::io::Result<()> {
        let key = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                drop(self.known.insert(key(&pod), pod));
            }
            watcher::Event::Delete(pod) => drop(self.known.remove(&key(&pod))),
            watcher::Event::Init => self.known.clear(),
            watcher::Event::InitDone => {}
        }
        self.redraw()
    }

    fn redraw(&mut self) -> std::io::Result<()> {
        let now = Timestamp::now();
        let rows: BTreeMap<String, Row> = self
            .known
            .iter()
            .map(|(key, pod)| (key.clone(), Row::of(pod, now)))
            .collect();
        if std::io::stdout().is_terminal() {
            self.draw(&rows, now)?;
        } else {
            for (key, row) in &rows {
                if self.shown.get(key) != Some(row) {
                    output::line(row.line())?;
                }
            }
            for key in self.shown.keys().filter(|key| !rows.contains_key(*key)) {
                output::line(format!("{key} deleted"))?;
            }
        }
        self.shown = rows;
        Ok(())
    }

    /// Draws the table over the one before.
    fn draw(&mut self, rows: &BTreeMap<String, Row>, now: Timestamp) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
        }
        let lines = if rows.is_empty() {
            Vec::new()
        } else {
            pods_view::lines(rows, now)
        };
        for line in &lines {
            writeln!(out, "{line}")?;
        }
        self.drawn = lines.len();
        out.flush()
    }
}

/// Stops the node within the deadline; a second signal ends the program at once. Gives what did not stop.
pub(crate) async fn stop(handle: Handle, deadline: Duration, signal: &mut Told) -> Vec<String> {
    tokio::select! {
        left = handle.shutdown(deadline) => left,
        _ = signal.wait() => vec!["a second signal came first".to_owned()],
    }
}
