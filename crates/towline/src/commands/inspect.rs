//! `towline inspect`: what an image is.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Question};

use super::store::{self, StoreArgs};
use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};

/// Show what images of a data directory are: names, sizes, layers, how they start; through its node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// How to print the answer; `text` is YAML too
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = Question::Inspect(args.images.clone());
    let Answer::Inspected(answers) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    let all = answers.iter().all(Option::is_some);
    for (name, _) in args
        .images
        .iter()
        .zip(&answers)
        .filter(|(_, found)| found.is_none())
    {
        output::note(format!("there is no image {name:?} here"));
    }
    let found: Vec<_> = answers.into_iter().flatten().collect();
    if !found.is_empty() {
        let format = match args.output {
            Format::Text => Format::Yaml,
            other => other,
        };
        output::document(format, &found)?;
    }
    Ok(ExitCode::from(if all { OK } else { BROKEN }))
}
