//! `towline registry`: run one, or look after what one holds.

mod archive;
mod carry_archive;
mod image;
mod layout;
mod list;
mod progress;
mod serve;
mod shared;
mod storage;
mod transfer;

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

/// The version of every document that these commands print.
const API_VERSION: &str = "towline.dev/v1";

/// A document: what it is, and its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    fields: T,
}

impl<T> Printed<T> {
    fn new(kind: &'static str, fields: T) -> Self {
        Self {
            api_version: API_VERSION,
            kind,
            fields,
        }
    }
}

/// Run a registry, or look into any registry and carry images between them
///
/// Without a subcommand it runs a registry that skopeo, crane, podman, docker and containerd push to and pull from. Without a login everyone on this machine may do everything. Beyond loopback it wants a login, unless told otherwise.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Box<serve::ServeArgs>,
}

#[derive(Subcommand)]
enum Command {
    Ls(list::LsArgs),
    Tags(list::TagsArgs),
    Inspect(image::InspectArgs),
    Rm(image::RmArgs),
    Copy(transfer::CopyArgs),
    Export(transfer::ExportArgs),
    Import(transfer::ImportArgs),
    Gc(storage::GcArgs),
    Check(storage::CheckArgs),
}

impl Args {
    /// What must be done before the program has a second thread: a registry alone has few at work and should stay small.
    pub(crate) fn prepare(&self) {
        if self.command.is_none() {
            towline_sys::memory::few_arenas();
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        None => serve::run(*args.serve).await,
        Some(Command::Ls(args)) => list::ls(args).await,
        Some(Command::Tags(args)) => list::tags(args).await,
        Some(Command::Inspect(args)) => image::inspect(args).await,
        Some(Command::Rm(args)) => image::rm(args).await,
        Some(Command::Copy(args)) => Box::pin(transfer::copy(args)).await,
        Some(Command::Export(args)) => Box::pin(transfer::export(args)).await,
        Some(Command::Import(args)) => Box::pin(transfer::import(args)).await,
        Some(Command::Gc(args)) => storage::gc(args).await,
        Some(Command::Check(args)) => storage::check(args).await,
    }
}

/// A repository as the command line names and enters it; an image without tag or digest means `latest`.
async fn repository(
    registry: &crate::registry_client::RegistryArgs,
    image: &str,
) -> anyhow::Result<towline_distribution::Repository> {
    let reference = towline_oci::Reference::parse(image)?.with_default_tag();
    let client = registry.client()?;
    let candidates = registry.candidates(image, &client).await?;
    let first = candidates.into_iter().next();
    let credential = first.map_or(towline_keyring::Credential::Anonymous, |found| {
        found.credential
    });
    let trace = towline_distribution::Trace::default();
    Ok(client.repository(&reference, credential, trace))
}
