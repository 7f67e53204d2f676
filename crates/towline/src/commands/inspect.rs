//! `towline inspect`: what an image is.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::exit::{BROKEN, OK, hinted};
use crate::output::{self, Format};

/// Show what images of a data directory are: names, sizes, layers, how they start
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the answer; without it YAML
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    output: Format,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: String,
    tags: Vec<String>,
    digests: Vec<String>,
    manifest: String,
    size: u64,
    unpacked_size: u64,
    pinned: bool,
    layers: Vec<String>,
    directories: Vec<PathBuf>,
    config: towline_oci::ImageConfig,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(facts) = towline_node::Facts::read(&args.data_dir) {
        return Err(hinted(
            format!("the node {} owns these images", facts.node),
            format!(
                "ask it: crictl --image-endpoint unix://{} inspecti IMAGE",
                facts.cri.display()
            ),
        ));
    }
    let images = super::images::open(&args.data_dir)?;
    let mut found = Vec::new();
    for name in &args.images {
        let Some(image) = images.get(name) else {
            output::note(format!("there is no image {name:?} here"));
            continue;
        };
        found.push(Shown {
            id: image.id.to_string(),
            manifest: image.manifest.to_string(),
            size: image.size,
            unpacked_size: image.unpacked_size,
            pinned: image.pinned,
            layers: image.diff_ids.iter().map(ToString::to_string).collect(),
            directories: images.lower_dirs(&image),
            tags: image.repo_tags,
            digests: image.repo_digests,
            config: image.config,
        });
    }
    let all = found.len() == args.images.len();
    if !found.is_empty() {
        output::document(args.output, &found)?;
    }
    Ok(ExitCode::from(if all { OK } else { BROKEN }))
}
