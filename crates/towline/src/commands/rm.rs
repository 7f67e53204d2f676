//! `towline rm`: removes images.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use towline_cri::v1;

use crate::exit::{BROKEN, OK};
use crate::output;

/// Remove images with all their names, through the node while that runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name, id, or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut missing = false;
    if let Some(facts) = towline_node::Facts::read(&args.data_dir) {
        let mut client = super::images::client(&facts).await?;
        for name in &args.images {
            let image = v1::ImageSpec {
                image: name.clone(),
                ..v1::ImageSpec::default()
            };
            let status = v1::ImageStatusRequest {
                image: Some(image.clone()),
                verbose: false,
            };
            let here = client.image_status(status).await.context("ask the node")?;
            let here = here.into_inner().image.is_some();
            let request = v1::RemoveImageRequest { image: Some(image) };
            let removed = client.remove_image(request).await;
            removed.with_context(|| format!("remove {name}"))?;
            missing |= told(name, here)?;
        }
    } else {
        let images = super::images::open(&args.data_dir)?;
        for name in &args.images {
            missing |= told(name, images.remove(name).await?)?;
        }
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
