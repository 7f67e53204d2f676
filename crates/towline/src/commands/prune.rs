//! `towline prune`: removes what nothing uses.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Question};

use super::store::{self, StoreArgs};
use crate::exit::OK;
use crate::output;

/// Remove layers and downloads that nothing uses any more; with --all images too; through the node while that runs
///
/// Layers younger than two minutes stay: a pull may be about to use them. Interrupted downloads that no pull goes on with go too: what came of
/// them is downloaded again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also every image that no container holds and that is not pinned
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = Question::Prune(args.all);
    let Answer::Pruned(pruned) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    output::line(format!(
        "{} images, {} other layers, {} other blobs, {} interrupted downloads: {} freed",
        pruned.images,
        pruned.layers,
        pruned.blobs,
        pruned.downloads,
        output::size(pruned.bytes)
    ))?;
    Ok(ExitCode::from(OK))
}
