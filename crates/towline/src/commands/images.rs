//! `towline images`: what is in the store.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Listed, Question};

use super::store::{self, StoreArgs};
use crate::exit::OK;
use crate::output::{self, Format};
use crate::table;

/// List the images of a data directory, one line a name; through its node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// How to print the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Answer::Images(rows) = store::ask(&args.store, Question::Images).await? else {
        return Err(store::unexpected());
    };
    if args.output != Format::Text {
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    // Few keep them: else the column says nothing.
    let kept = rows.iter().any(|row| row.kept > 0);
    let mut header = ["Image", "Id", "Size"].map(str::to_owned).to_vec();
    header.extend(kept.then(|| "Kept compressed".to_owned()));
    let cells = rows.iter().flat_map(|row| {
        let id = row.id.trim_start_matches("sha256:");
        let id: String = id.chars().take(12).collect();
        let mut line = vec![id, output::size(row.size)];
        line.extend(kept.then(|| output::size(row.kept)));
        names(row).into_iter().map(move |name| {
            let mut cells = vec![name];
            cells.extend(line.iter().cloned());
            cells
        })
    });
    for line in table::layout(&header, &cells.collect::<Vec<_>>()) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}

/// Every name that an image is called by; its digests where it has no tag.
fn names(row: &Listed) -> Vec<String> {
    let names = if row.tags.is_empty() {
        &row.digests
    } else {
        &row.tags
    };
    if names.is_empty() {
        return vec!["<none>".to_owned()];
    }
    names.clone()
}
