//! `towline rm`: removes images.

use std::process::ExitCode;

use towline_runtime::control::{Answer, Question};

use super::store::{self, StoreArgs};
use crate::exit::{BROKEN, OK};
use crate::output;

/// Remove images with all their names, through the node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let question = Question::Remove(args.images.clone());
    let Answer::Removed(removed) = store::ask(&args.store, question).await? else {
        return Err(store::unexpected());
    };
    let mut missing = false;
    for (name, removed) in args.images.iter().zip(removed) {
        missing |= told(name, removed)?;
    }
    Ok(ExitCode::from(if missing { BROKEN } else { OK }))
}

/// Says what became of a name; true where there was no such image.
fn told(name: &str, removed: bool) -> std::io::Result<bool> {
    if removed {
        output::line(format!("{name} removed"))?;
    } else {
        output::note(format!("there is no image {name:?} here"));
    }
    Ok(!removed)
}
