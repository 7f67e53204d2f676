//! `towline images`: what is in the store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_cri::v1;
use towline_oci::Platform;

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
        Some(facts) => of_node(&format!("unix://{}", facts.cri.display())).await?,
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
            row.size.to_string(),
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

async fn of_node(endpoint: &str) -> anyhow::Result<Vec<Row>> {
    let channel = towline_cri::client::connect(endpoint)
        .await
        .context("reach the node's runtime")?;
    let mut client = v1::image_service_client::ImageServiceClient::new(channel);
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
    let client = towline_distribution::Client::new(towline_distribution::Options::default())?;
    let images = super::pull::open(&args.data_dir, client, Platform::host())?;
    let rows = images.list().into_iter().map(|image| Row {
        id: image.id.to_string(),
        tags: image.repo_tags.iter().map(ToString::to_string).collect(),
        digests: image.repo_digests.iter().map(ToString::to_string).collect(),
        size: image.size,
    });
    Ok(rows.collect())
}
