//! `towline prune`: removes what nothing uses.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Pruned, Question};

use super::store::{self, StoreArgs};
use crate::exit::OK;
use crate::output;

/// Remove layers and downloads that nothing uses any more; with --all images too; through the node while that runs
///
/// Layers younger than two minutes stay: a pull may be about to use them. Interrupted downloads that no pull goes on with go too: what came of
/// them is downloaded again. Compressed layers that were kept on purpose (`--keep-blobs`) go with their image, or all of them with --blobs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also every image that no container holds and that is not pinned
    #[arg(short, long)]
    all: bool,
    /// Also every compressed layer that was kept with --keep-blobs; the images stay
    #[arg(long)]
    blobs: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let forgotten = if args.blobs {
        ask(&args, Question::ForgetKept).await?
    } else {
        Pruned::default()
    };
    let mut pruned = ask(&args, Question::Prune(args.all)).await?;
    pruned.blobs += forgotten.blobs;
    pruned.bytes += forgotten.bytes;
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

async fn ask(args: &Args, question: Question) -> anyhow::Result<Pruned> {
    match store::ask(&args.store, question).await? {
        Answer::Pruned(pruned) => Ok(pruned),
        _ => Err(store::unexpected()),
    }
}
