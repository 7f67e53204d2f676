//! `towline images`: what is in the store.

use std::path::PathBuf;
use std::process::ExitCode;

use towline_runtime::control::{Answer, Question};

use super::store;
use crate::exit::OK;
use crate::output::{self, Format};
use crate::table;

/// List the images of a data directory, through its node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Answer::Images(rows) = store::ask(&args.data_dir, Question::Images).await? else {
        return Err(store::unexpected());
    };
    if args.output != Format::Text {
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    let cells = rows.iter().map(|row| {
        let name = row
            .tags
            .first()
            .or_else(|| row.digests.first())
            .cloned()
            .unwrap_or_else(|| "<none>".to_owned());
        let id = row.id.trim_start_matches("sha256:");
        vec![name, id.chars().take(12).collect(), output::size(row.size)]
    });
    for line in table::layout(
        &["Image", "Id", "Size"].map(str::to_owned),
        &cells.collect::<Vec<_>>(),
    ) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}
