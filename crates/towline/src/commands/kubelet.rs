//! `towline kubelet`: the node agent alone, on any API server and any CRI runtime.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use towline_kubelet::{Kube, Options, Runtime, Service, Serving};

use crate::exit::OK;
use crate::image_gc::ImageGcArgs;
use crate::output;
use crate::registry_client::MirrorArgs;

/// Run the node agent alone: on any Kubernetes API server, over any CRI runtime (ours, containerd, CRI-O)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig with the node's rights (user system:node:NAME)
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    node_name: String,
    /// The runtime's socket
    #[arg(
        long,
        value_name = "unix:///PATH",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    container_runtime_endpoint: String,
    /// Where volumes and logs of pods lie
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/kubelet")]
    root_dir: PathBuf,
    /// Where the endpoint for logs listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10250")]
    listen: SocketAddr,
    /// The node's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    node_ip: IpAddr,
    /// Certificate (PEM) of the endpoint for logs, from an authority that the API server knows [default: one of its own]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authority (PEM) of clients that may read logs: the API server's
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Most pulls at a time; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 1)]
    max_parallel_image_pulls: u32,
    /// The group in the cgroup tree below which pods go
    #[arg(long, value_name = "PATH", default_value = "/")]
    cgroup_root: String,
    #[command(flatten)]
    image_gc: ImageGcArgs,
    /// Trust this certificate authority too (PEM) when a pull is replayed here for `why --from-node`; repeatable
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// Mirrors that the runtime follows, for replays
    #[command(flatten)]
    mirrors: MirrorArgs,
    /// Add nothing to what Kubernetes itself does: no annotation, no condition, no early attempts
    #[arg(long)]
    kubernetes_exact: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::up::need_root("kubelet")?;
    let runtime = Runtime::Endpoint(args.container_runtime_endpoint);
    let mut options = Options::new(
        Kube::Kubeconfig(args.kubeconfig),
        runtime,
        args.node_name,
        args.root_dir,
    );
    options.listen = args.listen;
    options.node_ip = args.node_ip;
    options.cgroup_root = args.cgroup_root;
    options.kubernetes_exact = args.kubernetes_exact;
    options.image_gc = args.image_gc.rules()?;
    options.max_parallel_image_pulls = Some(args.max_parallel_image_pulls).filter(|most| *most > 0);
    options.replay = Some(replay(&args.mirrors, &args.ca)?);
    options.serving = serving(
        args.client_ca_file.as_deref(),
        args.tls_cert_file
            .as_deref()
            .zip(args.tls_private_key_file.as_deref()),
    )?;
    let handle = Service::start(options).await.context("start the kubelet")?;
    output::note(format!(
        "kubelet runs, its endpoint is https://{}",
        handle.address()
    ));
    let ended = super::until_told_or("kubelet", handle.stopped()).await;
    handle.shutdown(Duration::from_secs(5)).await;
    ended?;
    Ok(ExitCode::from(OK))
}

/// What replays pulls as the runtime makes them: it is the runtime's configuration that is named here.
fn replay(
    mirrors: &MirrorArgs,
    authorities: &[PathBuf],
) -> anyhow::Result<towline_kubelet::Replay> {
    let mut client = towline_distribution::Options {
        endpoints: mirrors.sources()?,
        ..towline_distribution::Options::default()
    };
    for file in authorities {
        let pem = std::fs::read(file)
            .with_context(|| format!("read the certificate authority {}", file.display()))?;
        client.extra_ca_pem.push(pem);
    }
    towline_node::replay::with(client).context("make the registry client")
}

/// The endpoint's own certificate with its key, and the authority of those who call it.
fn serving(client_ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> anyhow::Result<Serving> {
    let read = |what: &str, file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("read {what} {}", file.display()))
    };
    let identity = match identity {
        Some((certificate, key)) => Some((
            read("the certificate", certificate)?.into_bytes(),
            read("the key", key)?.into(),
        )),
        None => None,
    };
    let client_ca = client_ca
        .map(|file| read("the authority", file))
        .transpose()?
        .map(String::into_bytes);
    Ok(Serving {
        identity,
        client_ca,
    })
}
