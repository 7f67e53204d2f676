//! `towline verify`: whether what is on the disk is what was pulled.

use std::path::PathBuf;
use std::process::ExitCode;

use towline_images::{Damage, Image, Images, PullRequest};
use towline_keyring::Credential;
use towline_oci::{Platform, Reference};

use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

/// Compare everything in the image store with its digests and checksums; with --repair fetch again what is damaged
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fetch again what is damaged or missing, from the registry that the image came from
    #[arg(long)]
    repair: bool,
    /// Where images are kept
    #[arg(long, value_name = "DIR", default_value = crate::cli::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    images: usize,
    damage: Vec<Damage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_after_repair: Option<Vec<Damage>>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::images::refuse_while_node_runs(
        &args.data_dir,
        "stop it first: what a container runs on cannot be replaced",
    )?;
    let client = args.registry.client()?;
    let images = super::pull::open(&args.data_dir, client, Platform::host())?;
    let damage = images.verify().await?;
    if args.output == Format::Text {
        for each in &damage {
            output::line(each)?;
        }
    }
    let left = if args.repair && !damage.is_empty() {
        Some(repair(&args, &images, &damage).await?)
    } else {
        None
    };
    let count = images.list().len();
    let bad = left.as_ref().unwrap_or(&damage).len();
    if args.output == Format::Text {
        let repaired = if left.is_some() {
            " after the repair"
        } else {
            ""
        };
        output::line(format!(
            "{count} images, {bad} things are damaged{repaired}"
        ))?;
        if bad > 0 && left.is_none() {
            output::note("hint: towline verify --repair fetches again what is damaged");
        }
    } else {
        let verified = Verified {
            images: count,
            damage,
            left_after_repair: left,
        };
        output::document(args.output, &verified)?;
    }
    Ok(ExitCode::from(if bad == 0 { OK } else { BROKEN }))
}

/// Takes away what is damaged, pulls each image that misses something, and gives what is damaged then.
async fn repair(args: &Args, images: &Images, damage: &[Damage]) -> anyhow::Result<Vec<Damage>> {
    for each in damage {
        if !images.discard(each).await? {
            output::note(format!("{each}: a container holds it, so that it stays"));
        }
    }
    let missing = images.verify().await?;
    for image in images.list() {
        let misses =
            |damage: &Damage| matches!(damage, Damage::Image { id, .. } if *id == image.id);
        if missing.iter().any(misses) {
            pull_again(args, images, &image).await?;
        }
    }
    Ok(images.verify().await?)
}

async fn pull_again(args: &Args, images: &Images, image: &Image) -> anyhow::Result<()> {
    if image.repo_digests.is_empty() {
        output::note(format!(
            "image {}: nothing says where it came from",
            image.id
        ));
    }
    for name in &image.repo_digests {
        let Ok(reference) = Reference::parse(name) else {
            continue;
        };
        let candidate = args.registry.candidates(name)?.into_iter().next();
        let credential = candidate.map_or(Credential::Anonymous, |candidate| candidate.credential);
        let mut request = PullRequest::new(reference, credential);
        request.platform = Some(image.config.platform.clone());
        match images.pull(request).await {
            Ok(_) => {
                output::note(format!("{name} fetched again"));
                return Ok(());
            }
            Err(failure) => {
                output::note(format!("{name}: {} ({})", failure.chain(), failure.cause()));
            }
        }
    }
    Ok(())
}
