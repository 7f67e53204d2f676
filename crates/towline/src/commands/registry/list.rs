//! `towline registry ls` and `tags`.

use std::process::ExitCode;

use serde::Serialize;

use super::Printed;
use crate::exit::OK;
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

/// List the repositories of a registry, as far as it tells
#[derive(clap::Args)]
pub(super) struct LsArgs {
    /// The registry, such as `127.0.0.1:5000`
    registry: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

/// List the tags of a repository
#[derive(clap::Args)]
pub(super) struct TagsArgs {
    /// The repository, such as `127.0.0.1:5000/team/app`
    repository: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    limit: usize,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

pub(super) async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    // The list is the registry's; a name is needed only to say which registry.
    let name = format!("{}/any", args.registry.trim_end_matches('/'));
    let names = super::repository(&args.client, &name)
        .await?
        .catalog(args.limit)
        .await?;
    print(args.output, "RepositoryList", &args.registry, names)
}

pub(super) async fn tags(args: TagsArgs) -> anyhow::Result<ExitCode> {
    let repository = super::repository(&args.client, &args.repository).await?;
    let tags = repository.tags(args.limit).await?;
    print(args.output, "TagList", &args.repository, tags)
}

#[derive(Serialize)]
struct Names<'a> {
    /// The registry or repository.
    of: &'a str,
    items: Vec<String>,
}

fn print(
    format: Format,
    kind: &'static str,
    of: &str,
    items: Vec<String>,
) -> anyhow::Result<ExitCode> {
    if format == Format::Text {
        for name in items {
            output::line(name)?;
        }
    } else {
        output::document(format, &Printed::new(kind, Names { of, items }))?;
    }
    Ok(ExitCode::from(OK))
}
