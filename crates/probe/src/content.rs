//! The manifest for the platform, and every blob of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use towline_cause::{Cause, Failure, Step};
use towline_distribution::{BlobHead, Repository, Resolved, select_platform};
use towline_oci::{Descriptor, Document, ImageConfig, Manifest, Platform, media_type};

use crate::report::Outcome;
use crate::run::Probe;

const MOST_CONFIG: u64 = 4 << 20;
/// Blobs asked for at once.
const AT_ONCE: usize = 4;

/// Chooses the platform's manifest; `None` where the pull would stop.
pub(crate) async fn platform(
    probe: &mut Probe<'_>,
    repository: &Repository,
    resolved: Resolved,
) -> Option<Manifest> {
    match choose(probe, repository, resolved).await {
        Ok((manifest, offered)) => {
            let texts: Vec<String> = probe
                .report
                .platforms
                .iter()
                .map(ToString::to_string)
                .collect();
            let size =
                manifest.layers.iter().map(|layer| layer.size).sum::<u64>() + manifest.config.size;
            probe.report.size = Some(size);
            let facts = BTreeMap::from([
                ("platform".to_owned(), probe.request.platform.to_string()),
                ("offered".to_owned(), texts.join(", ")),
                ("layers".to_owned(), manifest.layers.len().to_string()),
                ("bytes".to_owned(), size.to_string()),
            ]);
            probe.step(Step::Platform, Outcome::Ok, offered, facts);
            Some(manifest)
        }
        Err(failure) => {
            probe.fail(&failure);
            None
        }
    }
}

async fn choose(
    probe: &mut Probe<'_>,
    repository: &Repository,
    resolved: Resolved,
) -> Result<(Manifest, String), Failure> {
    let wanted = probe.request.platform.clone();
    match resolved.document {
        Document::Index(index) => {
            probe.report.platforms = index.platforms();
            let entry = select_platform(&index, &wanted)?;
            let child = repository.manifest(&entry.digest).await?;
            match child.document {
                Document::Manifest(manifest) => {
                    runnable(&manifest, &resolved.endpoint)?;
                    Ok((
                        manifest,
                        format!("the index has {wanted}: {}", entry.digest),
                    ))
                }
                Document::Index(_) => Err(Failure::new(
                    Cause::NotAnImage,
                    Step::Platform,
                    format!(
                        "the index names another index for {wanted}: {}",
                        entry.digest
                    ),
                )),
            }
        }
        Document::Manifest(manifest) => {
            runnable(&manifest, &resolved.endpoint)?;
            let built_for = of_config(repository, &manifest).await?;
            probe.report.platforms = vec![built_for.clone()];
            if wanted.matches(&built_for) {
                Ok((manifest, format!("the image is built for {built_for}")))
            } else {
                Err(Failure::new(
                    Cause::PlatformMismatch,
                    Step::Platform,
                    format!("the image is built for {built_for} alone, and the node is {wanted}"),
                )
                .at(resolved.endpoint))
            }
        }
    }
}

/// Refuses what no container can be made of.
fn runnable(manifest: &Manifest, endpoint: &str) -> Result<(), Failure> {
    if !media_type::is_image_config(&manifest.config.media_type) {
        let kind = manifest
            .artifact_type
            .as_deref()
            .unwrap_or(&manifest.config.media_type);
        return Err(Failure::new(
            Cause::NotAnImage,
            Step::Resolve,
            format!("there is no image at that name but {kind:?}"),
        )
        .at(endpoint));
    }
    let odd = manifest
        .layers
        .iter()
        .find(|layer| media_type::layer_compression(&layer.media_type).is_none());
    match odd {
        Some(layer) if layer.media_type.ends_with("+encrypted") => Err(Failure::new(
            Cause::EncryptedImage,
            Step::Unpack,
            format!("layer {} is encrypted", layer.digest),
        )
        .at(endpoint)),
        Some(layer) => Err(Failure::new(
            Cause::UnsupportedLayer,
            Step::Unpack,
            format!(
                "layer {} is of type {:?}, which cannot be unpacked",
                layer.digest, layer.media_type
            ),
        )
        .at(endpoint)),
        None => Ok(()),
    }
}

/// The platform that an image without an index is built for: its config tells.
async fn of_config(repository: &Repository, manifest: &Manifest) -> Result<Platform, Failure> {
    let bytes = repository.blob_bytes(&manifest.config, MOST_CONFIG).await?;
    let config = ImageConfig::parse(&bytes).map_err(|error| {
        Failure::new(
            Cause::NotAnImage,
            Step::Resolve,
            format!(
                "the image's config {} cannot be read: {error}",
                manifest.config.digest
            ),
        )
        .because(error)
    })?;
    if config.diff_ids().len() != manifest.layers.len() {
        return Err(Failure::new(
            Cause::NotAnImage,
            Step::Resolve,
            format!(
                "the image has {} layers and its config describes {}",
                manifest.layers.len(),
                config.diff_ids().len()
            ),
        ));
    }
    Ok(config.platform)
}

/// The blobs of an image, each once: the config, then the layers from the lowest up.
pub(crate) fn blobs(manifest: &Manifest, most: usize) -> Vec<Descriptor> {
    let mut seen = BTreeSet::new();
    std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .filter(|blob| seen.insert(blob.digest.clone()))
        .take(most)
        .cloned()
        .collect()
}

/// Asks for every blob where its bytes are; true where all are there.
pub(crate) async fn fetch(
    probe: &mut Probe<'_>,
    repository: &Repository,
    manifest: &Manifest,
) -> bool {
    // Owned, so that whoever spawns a replay need not prove that it borrows well.
    let blobs = blobs(manifest, probe.request.most_blobs);
    let asked = blobs.len();
    let mut asking = stream::iter(blobs)
        .map(|blob| async move {
            let answer = repository.head_blob(&blob.digest).await;
            (blob, answer)
        })
        .buffered(AT_ONCE);
    let mut answers: Vec<(Descriptor, Result<BlobHead, Failure>)> = Vec::new();
    while let Some((blob, answer)) = asking.next().await {
        // Each further one would be waited for as long.
        let silent = answer.as_ref().is_err_and(is_silence);
        answers.push((blob, answer));
        if silent {
            break;
        }
    }
    let mut hosts = BTreeSet::new();
    let mut failures = Vec::new();
    for (blob, answer) in answers {
        match answer {
            Ok(head) => {
                if let Some(size) = head.size.filter(|size| *size != blob.size) {
                    failures.push(
                        Failure::new(
                            Cause::DigestMismatch,
                            Step::Verify,
                            format!(
                                "blob {} has {} bytes by its manifest and {size} where it lies",
                                blob.digest, blob.size
                            ),
                        )
                        .at(head.endpoint.clone()),
                    );
                }
                hosts.insert(head.endpoint);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let hosts: Vec<String> = hosts.into_iter().collect();
    let facts = BTreeMap::from([
        ("asked".to_owned(), asked.to_string()),
        ("failed".to_owned(), failures.len().to_string()),
        ("from".to_owned(), hosts.join(", ")),
    ]);
    // What cannot be had at all says more than what has another size.
    match failures.iter().min_by_key(|failure| failure.step()) {
        None => {
            let text = format!("all {asked} blobs are there, at {}", hosts.join(", "));
            probe.step(Step::Fetch, Outcome::Ok, text, facts);
            true
        }
        Some(worst) => {
            let (outcome, trouble) = match worst.step() {
                Step::Verify => (Outcome::Ok, "have another size"),
                Step::Fetch => (Outcome::Failed, "cannot be had"),
                _ => (Outcome::Ok, "cannot be had"),
            };
            let lost = failures.iter().filter(|one| one.step() < Step::Verify);
            let count = match worst.step() {
                Step::Verify => failures.len(),
                _ => lost.count(),
            };
            let text = format!(
                "{count} of {asked} blobs {trouble}; the first: {}",
                worst.detail()
            );
            probe.step(Step::Fetch, outcome, text, facts);
            probe.fail(worst);
            false
        }
    }
}

/// Whether a server took the connection and said nothing, or no more.
pub(crate) fn is_silence(failure: &Failure) -> bool {
    let silent = matches!(
        failure.cause(),
        Cause::ConnectionTimeout | Cause::PullStalled
    );
    silent && failure.step() > Step::Tls
}
