//! `towline df`: what images take.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_cri::v1;

use crate::exit::OK;
use crate::output::{self, Format};
use crate::table;

/// Show what the images of a data directory take on the disk, through the node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    what: &'static str,
    count: u64,
    bytes: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let rows = match towline_node::Facts::read(&args.data_dir) {
        Some(facts) => of_node(&facts).await?,
        None => of_store(&args).await?,
    };
    if args.output != Format::Text {
        output::document(args.output, &rows)?;
        return Ok(ExitCode::from(OK));
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.what.to_owned(),
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

async fn of_store(args: &Args) -> anyhow::Result<Vec<Row>> {
    let images = super::images::open(&args.data_dir)?;
    let usage = images.usage().await?;
    let list = images.list();
    let held: Vec<_> = images.holds().into_iter().map(|(_, id)| id).collect();
    let unused = list
        .iter()
        .filter(|image| !image.pinned && !held.contains(&image.id));
    let row = |what, count, bytes| Row { what, count, bytes };
    Ok(vec![
        row(
            "images",
            list.len() as u64,
            list.iter().map(|image| image.unpacked_size).sum(),
        ),
        row(
            "images no container holds",
            unused.clone().count() as u64,
            unused.map(|image| image.unpacked_size).sum(),
        ),
        row("layers", usage.layer_count, usage.layers),
        row("files, directories, links", usage.inodes, usage.layers),
        row("manifests and configs", usage.blob_count, usage.blobs),
        row("interrupted downloads", usage.spool_count, usage.spool),
    ])
}

async fn of_node(facts: &towline_node::Facts) -> anyhow::Result<Vec<Row>> {
    let mut client = super::images::client(facts).await?;
    let list = client
        .list_images(v1::ListImagesRequest { filter: None })
        .await
        .context("list the node's images")?;
    let count = list.into_inner().images.len() as u64;
    let info = client
        .image_fs_info(v1::ImageFsInfoRequest {})
        .await
        .context("ask the node what its images take")?;
    let systems = info.into_inner().image_filesystems;
    let bytes = systems.iter().filter_map(|fs| fs.used_bytes.as_ref());
    Ok(vec![Row {
        what: "images",
        count,
        bytes: bytes.map(|used| used.value).sum(),
    }])
}
