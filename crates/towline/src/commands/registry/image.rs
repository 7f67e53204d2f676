//! `towline registry inspect` and `rm`.

use std::process::ExitCode;

use serde::Serialize;
use towline_oci::{Descriptor, Document};

use super::Printed;
use crate::exit::{BROKEN, OK};
use crate::output::{self, Format};
use crate::registry_client::RegistryArgs;

/// Show what an image is: digest, platforms or layers, annotations, and what refers to it
#[derive(clap::Args)]
pub(super) struct InspectArgs {
    /// The image
    image: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

/// Delete a tag, or with a digest a manifest and every tag of it
///
/// Registries may refuse either. The bytes go when the registry collects its garbage.
#[derive(clap::Args)]
pub(super) struct RmArgs {
    /// The images
    #[arg(required = true)]
    images: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    api_version: &'static str,
    kind: &'static str,
    image: String,
    digest: String,
    media_type: String,
    size: usize,
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    parts: Vec<Part>,
    referrers: Vec<Part>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    what: &'static str,
    digest: String,
    size: u64,
    media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
}

fn part(what: &'static str, descriptor: &Descriptor) -> Part {
    Part {
        what,
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
        media_type: descriptor.media_type.clone(),
        platform: descriptor.platform.as_ref().map(ToString::to_string),
    }
}

pub(super) async fn inspect(args: InspectArgs) -> anyhow::Result<ExitCode> {
    let repository = super::repository(&args.client, &args.image).await?;
    let resolved = repository.resolve().await?;
    let (parts, subject) = match &resolved.document {
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().map(|layer| part("layer", layer));
            let config = std::iter::once(part("config", &manifest.config));
            (config.chain(layers).collect(), &manifest.subject)
        }
        Document::Index(index) => {
            let manifests = index.manifests.iter().map(|one| part("manifest", one));
            (manifests.collect::<Vec<_>>(), &index.subject)
        }
    };
    // A registry without a list of referrers still says what the image is.
    let referrers = repository.referrers(&resolved.digest, None).await;
    let referrers = referrers.map(|index| index.manifests).unwrap_or_default();
    let found = Inspected {
        api_version: super::API_VERSION,
        kind: "Image",
        image: repository.reference().to_string(),
        digest: resolved.digest.to_string(),
        media_type: resolved.media_type,
        size: resolved.bytes.len(),
        endpoint: resolved.endpoint,
        subject: subject.as_ref().map(|subject| subject.digest.to_string()),
        parts,
        referrers: referrers.iter().map(|one| part("referrer", one)).collect(),
    };
    if args.output == Format::Text {
        text(&found)?;
    } else {
        output::document(args.output, &found)?;
    }
    Ok(ExitCode::from(OK))
}

fn text(found: &Inspected) -> anyhow::Result<()> {
    output::line(format!("image      {}", found.image))?;
    output::line(format!("digest     {}", found.digest))?;
    output::line(format!(
        "type       {}, {} bytes",
        found.media_type, found.size
    ))?;
    output::line(format!("from       {}", found.endpoint))?;
    if let Some(subject) = &found.subject {
        output::line(format!("refers to  {subject}"))?;
    }
    let header = ["what", "digest", "size", "type", "platform"].map(ToOwned::to_owned);
    let row = |part: &Part| {
        let platform = part.platform.clone().unwrap_or_default();
        let size = part.size.to_string();
        vec![
            part.what.to_owned(),
            part.digest.clone(),
            size,
            part.media_type.clone(),
            platform,
        ]
    };
    let rows: Vec<_> = found
        .parts
        .iter()
        .chain(&found.referrers)
        .map(row)
        .collect();
    for line in crate::table::layout(&header, &rows) {
        output::line(line)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Deleted {
    items: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    image: String,
    error: String,
}

pub(super) async fn rm(args: RmArgs) -> anyhow::Result<ExitCode> {
    // What is no image is wrong before anything is deleted.
    let mut repositories = Vec::new();
    for image in &args.images {
        repositories.push(super::repository(&args.client, image).await?);
    }
    let (mut items, mut failed) = (Vec::new(), Vec::new());
    for repository in repositories {
        let name = repository.reference().to_string();
        let target = repository.reference().target();
        match repository.delete_manifest(&target).await {
            Ok(()) => {
                if args.output == Format::Text {
                    output::line(format!("deleted {name}"))?;
                }
                items.push(name);
            }
            Err(failure) => {
                let error = anyhow::Error::new(failure);
                output::error(&error);
                failed.push(Failed {
                    image: name,
                    error: format!("{error:#}"),
                });
            }
        }
    }
    let code = if failed.is_empty() { OK } else { BROKEN };
    if args.output != Format::Text {
        let deleted = Deleted { items, failed };
        output::document(args.output, &Printed::new("Deleted", deleted))?;
    }
    Ok(ExitCode::from(code))
}
