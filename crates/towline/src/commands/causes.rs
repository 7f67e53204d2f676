//! `towline causes`: the vocabulary and its pages.

use std::process::ExitCode;

use towline_cause::{Cause, page};

use crate::exit::{OK, hinted};
use crate::output::{self, Format};
use crate::table;

/// Print the causes of a failed pull, or the page of one: what it is, how to prove it, how to fix it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A cause, such as `TagNotFound`
    name: Option<String>,
    /// How to print the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    group: towline_cause::Group,
    transient: bool,
    summary: &'static str,
    fix: &'static str,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.name {
        let known = Cause::ALL
            .into_iter()
            .find(|cause| cause.name().eq_ignore_ascii_case(name));
        let cause = known.ok_or_else(|| {
            hinted(
                format!("there is no cause {name:?}"),
                "`towline causes` lists them",
            )
        })?;
        output::line(page(cause).trim_end())?;
        return Ok(ExitCode::from(OK));
    }
    if args.output != Format::Text {
        let rows: Vec<Row> = Cause::ALL.into_iter().map(row).collect();
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    let rows: Vec<Vec<String>> = Cause::ALL
        .into_iter()
        .map(|cause| {
            let steps: Vec<&str> = cause.steps().iter().map(|step| step.name()).collect();
            vec![
                cause.name().to_owned(),
                format!("{:?}", cause.group()),
                steps.join(","),
            ]
        })
        .collect();
    for line in table::layout(
        &["Cause".to_owned(), "Group".to_owned(), "Step".to_owned()],
        &rows,
    ) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}

fn row(cause: Cause) -> Row {
    Row {
        name: cause.name(),
        group: cause.group(),
        transient: cause.transient(),
        summary: cause.summary(),
        fix: cause.fix(),
    }
}
