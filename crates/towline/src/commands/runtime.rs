//! `towline runtime`: the CRI runtime alone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use towline_runtime::{Options, Service};

use crate::ceilings::CeilingArgs;
use crate::exit::OK;
use crate::output;
use crate::registry_client::RegistryArgs;
use crate::spools::SpoolArgs;

/// Run the CRI runtime alone, for any kubelet or crictl
///
/// Pods outlive it: the next start takes them up again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Images, layers and writable layers
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/runtime")]
    root: PathBuf,
    /// Sandboxes and the shims' sockets
    #[arg(long, value_name = "DIR", default_value = "/run/towline/pods")]
    state_dir: PathBuf,
    /// The socket that CRI is served on
    #[arg(long, value_name = "FILE", default_value = "/run/towline/cri.sock")]
    socket: PathBuf,
    /// Name of the pods' bridge, at most 15 characters
    #[arg(long, value_name = "NAME", default_value = "towline0")]
    bridge: String,
    #[command(flatten)]
    ceilings: CeilingArgs,
    #[command(flatten)]
    spools: SpoolArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::up::need_root("runtime")?;
    let program = std::env::current_exe().context("find this program's file")?;
    let mut options = Options::new(
        args.root,
        args.state_dir,
        args.socket,
        vec![program.into_os_string(), OsString::from("shim")],
        super::unpack::here(),
    );
    options.client = args.registry.options()?;
    options.ceilings = args.ceilings.ceilings()?;
    options.store = args.spools.rules();
    options.keep_blobs = args.spools.keep_blobs();
    if let Some(network) = &mut options.network {
        network.bridge = args.bridge;
    }
    let handle = Service::start(options).await.context("start the runtime")?;
    output::note(format!("runtime listens on {}", handle.endpoint()));
    let ended = super::until_told_or("runtime", handle.stopped()).await;
    handle
        .shutdown(Duration::from_secs(5))
        .await
        .context("stop the runtime")?;
    ended?;
    Ok(ExitCode::from(OK))
}
