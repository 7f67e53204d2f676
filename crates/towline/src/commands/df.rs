//! `towline df`: what images take.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Question};

use super::store::{self, StoreArgs};
use crate::exit::OK;
use crate::output::{self, Format};
use crate::table;

/// Show what the images of a data directory take on the disk, through the node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Answer::Usage(rows) = store::ask(&args.store, Question::Usage).await? else {
        return Err(store::unexpected());
    };
    if args.output != Format::Text {
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.what.clone(),
                row.count.to_string(),
                output::size(row.bytes),
            ]
        })
        .collect();
    for line in table::layout(&["What", "Count", "Size"].map(str::to_owned), &cells) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}
