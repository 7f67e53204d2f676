//! `towline images`: what is in the store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use towline_cri::v1;
use towline_images::Images;
use towline_oci::Platform;

use crate::exit::{OK, hinted};
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

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    size: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let rows = match towline_node::Facts::read(&args.data_dir) {
        Some(facts) => of_node(&facts).await?,
        None => of_store(&args)?,
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
        vec![
            name,
            row.id
                .trim_start_matches("sha256:")
                .chars()
                .take(12)
                .collect(),
            output::size(row.size),
        ]
    });
    for line in table::layout(
        &["Image", "Id", "Size"].map(str::to_owned),
        &cells.collect::<Vec<_>>(),
    ) {
        output::line(line)?;
    }
    Ok(ExitCode::from(OK))
}

/// The images of a data directory that no node uses. Nothing is asked of a registry through them.
pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Images> {
    let client = towline_distribution::Client::new(towline_distribution::Options::default())?;
    super::pull::open(data_dir, client, Platform::host())
}

/// Fails while a node runs on the data directory.
pub(crate) fn refuse_while_node_runs(data_dir: &Path, hint: &str) -> anyhow::Result<()> {
    match towline_node::Facts::read(data_dir) {
        None => Ok(()),
        Some(facts) => Err(hinted(
            format!(
                "the node {} (process {}) owns the images of {}",
                facts.node,
                facts.pid,
                data_dir.display()
            ),
            hint,
        )),
    }
}

/// The image service of the node's runtime.
pub(crate) async fn client(
    facts: &towline_node::Facts,
) -> anyhow::Result<v1::image_service_client::ImageServiceClient<towline_cri::client::Channel>> {
    let endpoint = format!("unix://{}", facts.cri.display());
    let channel = towline_cri::client::connect(&endpoint)
        .await
        .context("reach the node's runtime")?;
    Ok(v1::image_service_client::ImageServiceClient::new(channel))
}

async fn of_node(facts: &towline_node::Facts) -> anyhow::Result<Vec<Row>> {
    let mut client = client(facts).await?;
    let list = client
        .list_images(v1::ListImagesRequest { filter: None })
        .await
        .context("list the node's images")?;
    let rows = list.into_inner().images.into_iter().map(|image| Row {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
    });
    Ok(rows.collect())
}

fn of_store(args: &Args) -> anyhow::Result<Vec<Row>> {
    let images = open(&args.data_dir)?;
    let rows = images.list().into_iter().map(|image| Row {
        id: image.id.to_string(),
        tags: image.repo_tags.iter().map(ToString::to_string).collect(),
        digests: image.repo_digests.iter().map(ToString::to_string).collect(),
        size: image.size,
    });
    Ok(rows.collect())
}
