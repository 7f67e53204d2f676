//! `towline registry gc` and `check`: the directory of a registry of our own, in use or not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use towline_registry::{Collection, check_shared, collect, collect_shared};
use towline_sys::task;

use super::Printed;
use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};

/// Collect garbage, also while the registry runs
#[derive(clap::Args)]
pub(super) struct GcArgs {
    /// The registry's directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/registry")]
    root: PathBuf,
    #[command(flatten)]
    shared: super::shared::SharedArgs,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// What is younger stays, in seconds; a push under way needs its blobs
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    grace: u64,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Hash every blob again and follow every link, also while the registry runs
#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// The registry's directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/towline/registry")]
    root: PathBuf,
    #[command(flatten)]
    shared: super::shared::SharedArgs,
    /// Images of which layers or platforms are missing are well
    #[arg(long)]
    sparse: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) async fn gc(args: GcArgs) -> anyhow::Result<ExitCode> {
    let how = Collection {
        dry_run: args.dry_run,
        grace: Duration::from_secs(args.grace),
    };
    let (root, shared) = (args.root.clone(), args.shared.options()?);
    let done = task::blocking("collect garbage", move || match shared {
        Some(shared) => collect_shared(&root, &shared, how),
        None => collect(&root, how),
    });
    let done = done.await?;
    if args.output != Format::Text {
        output::document(args.output, &Printed::new("Collected", &done))?;
        return Ok(ExitCode::from(OK));
    }
    let verb = if done.dry_run { "would go" } else { "went" };
    output::line(format!(
        "{} blobs with {} bytes {verb}, {} links to blobs, {} entries of referrers; {} repositories and {} manifests were looked at",
        done.blobs, done.bytes, done.links, done.referrers, done.repositories, done.manifests
    ))?;
    for name in &done.left_alone {
        output::line(format!(
            "left alone: {name}, since a manifest of it cannot be read"
        ))?;
    }
    Ok(ExitCode::from(OK))
}

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let (root, sparse) = (args.root.clone(), args.sparse);
    let found = if let Some(shared) = args.shared.options()? {
        let checked = move || check_shared(&shared, sparse);
        task::blocking("check the storage", checked).await?
    } else {
        anyhow::ensure!(root.is_dir(), "{} is no directory", root.display());
        let checked = move || towline_registry::check(&root, sparse);
        task::blocking("check the directory", checked).await?
    };
    if args.output == Format::Text {
        for problem in &found.problems {
            let place = problem.repository.as_deref().unwrap_or("blobs");
            output::line(format!("{place}: {}: {}", problem.name, problem.what))?;
        }
        output::line(format!(
            "{} blobs with {} bytes, {} manifests and {} tags in {} repositories: {} wrong",
            found.blobs, found.bytes, found.manifests, found.tags, found.repositories, found.wrong
        ))?;
    } else {
        output::document(args.output, &Printed::new("Checked", &found))?;
    }
    Ok(ExitCode::from(if found.wrong == 0 { OK } else { BROKEN }))
}
