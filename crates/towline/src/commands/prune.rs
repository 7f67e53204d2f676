//! `towline prune`: removes what nothing uses.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::exit::OK;
use crate::output;

/// Remove layers and downloads that nothing uses any more; with --all images too
///
/// What is younger than two minutes stays: a pull may be about to use it. Interrupted downloads stay for a day.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also every image that no container holds and that is not pinned
    #[arg(short, long)]
    all: bool,
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::images::refuse_while_node_runs(
        &args.data_dir,
        "it collects what it does not need; `towline rm IMAGE` removes one image",
    )?;
    let images = super::images::open(&args.data_dir)?;
    let before = images.usage().await?.bytes();
    let mut removed = 0_u64;
    if args.all {
        let held: Vec<_> = images.holds().into_iter().map(|(_, id)| id).collect();
        for image in images.list() {
            if !image.pinned && !held.contains(&image.id) {
                images.remove(&image.id.to_string()).await?;
                removed += 1;
            }
        }
    }
    let collected = images.gc().await?;
    let freed = before.saturating_sub(images.usage().await?.bytes());
    output::line(format!(
        "{removed} images, {} other layers, {} other blobs: {} freed",
        collected.layers,
        collected.blobs,
        output::size(freed)
    ))?;
    Ok(ExitCode::from(OK))
}
