//! `towline controllers`: the controllers alone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use towline_controllers::{Options, Service};

use crate::cluster::ClusterArgs;
use crate::exit::OK;
use crate::output;

/// Run the controllers alone: Deployments and their sets, namespaces, service accounts, garbage collection
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.cluster.config().await?;
    let handle = Service::start(Options::new(config)).context("start the controllers")?;
    output::note("controllers runs; Ctrl-C ends it");
    let ended = super::until_told_or("controllers", handle.ended()).await;
    handle.shutdown(Duration::from_secs(5)).await;
    ended?;
    Ok(ExitCode::from(OK))
}
