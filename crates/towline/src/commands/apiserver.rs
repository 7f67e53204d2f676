//! `towline apiserver`: the API server alone.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use towline_apiserver::{Identity, Options, Service};

use crate::exit::OK;
use crate::output;

/// Run the Kubernetes API server alone, over its own embedded store
///
/// Writes kubeconfigs for admin, scheduler, controllers and the nodes named into DIR/kubeconfigs, and beside a node's
/// kubeconfig the certificate of its endpoint for logs (node-NAME.crt, node-NAME.key). Its authority is DIR/pki/ca.crt.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where it keeps objects, certificates and kubeconfigs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/apiserver")]
    data_dir: PathBuf,
    /// Where to listen; repeatable
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6443")]
    listen: Vec<SocketAddr>,
    /// Another name that its certificate holds; repeatable
    #[arg(long, value_name = "NAME")]
    server_name: Vec<String>,
    /// Write kubeconfig and certificate for the agent of this node, at this address [default: 127.0.0.1]; repeatable
    #[arg(long, value_name = "NAME[=IP]", value_parser = node)]
    node: Vec<(String, IpAddr)>,
}

fn node(text: &str) -> Result<(String, IpAddr), String> {
    let (name, ip) = text.split_once('=').unwrap_or((text, "127.0.0.1"));
    // The name becomes a file's.
    if name.is_empty() || name.contains('/') {
        return Err(format!("{name:?} names no node"));
    }
    let ip = ip
        .parse()
        .map_err(|_| format!("{ip:?} is not an IP address"))?;
    Ok((name.to_owned(), ip))
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut options = Options::new(&args.data_dir, args.listen);
    options.server_names.clone_from(&args.server_name);
    let handle = Service::start(options)
        .await
        .context("start the API server")?;
    let folder = args.data_dir.join("kubeconfigs");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut identities = vec![
        ("admin".to_owned(), Identity::Admin),
        ("scheduler".to_owned(), Identity::Scheduler),
        ("controllers".to_owned(), Identity::Controllers),
    ];
    identities.extend(
        args.node
            .iter()
            .map(|(name, _)| (format!("node-{name}"), Identity::Node(name.clone()))),
    );
    for (name, ip) in &args.node {
        let common_name = format!("system:node:{name}");
        let certified = handle
            .issue_serving_cert(&common_name, std::slice::from_ref(name), &[*ip])
            .with_context(|| format!("make the certificate of node {name}"))?;
        let file = |end: &str| folder.join(format!("node-{name}.{end}"));
        write(&file("crt"), &certified.certificate_pem)?;
        write(&file("key"), &certified.key_pem)?;
    }
    for (name, identity) in identities {
        write(
            &folder.join(name),
            &handle.kubeconfig(&identity).context("make a kubeconfig")?,
        )?;
    }
    output::note(format!(
        "API server listens on {}; export KUBECONFIG={}",
        handle.url(),
        folder.join("admin").display()
    ));
    super::until_told().await?;
    output::note("stopping");
    handle.shutdown(Duration::from_secs(5)).await;
    Ok(ExitCode::from(OK))
}

/// Keys and kubeconfigs are for their owner alone.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    towline_sys::fs::write_atomic_mode(path, text.as_bytes(), 0o600)
        .with_context(|| format!("write {}", path.display()))
}
