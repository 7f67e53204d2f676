//! Images to and from archives.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use towline_distribution::Repository;
use towline_oci::{Descriptor, Digest, Document, Platform, media_type};
use towline_sys::task;

use super::archive::{Archive, Legacy, Pack, place, verified};
use super::layout;
use super::progress::Job;
use super::transfer::{Place, Read, carry};
use crate::exit::Usage;

/// The largest `index.json`, in bytes.
const INDEX_LIMIT: usize = 16 << 20;
/// Indexes in each other.
const DEPTH: usize = 4;

/// Pushes what an archive holds.
pub(super) async fn import(
    path: &Path,
    target: Repository,
    name: Option<String>,
    mut job: Job,
) -> anyhow::Result<ExitCode> {
    let file = path.to_owned();
    let archive = task::blocking("read an archive", move || Archive::open(&file)).await?;
    let archive = Arc::new(archive);
    let tag = target.reference().target();
    if let Some(top) = whole_layout(&archive, name.as_deref(), path)? {
        let (from, to) = (Place::Archive(archive), Place::Registry(Box::new(target)));
        let top = from.manifest(&top).await?;
        let digest = top.digest.clone();
        carry(&from, &to, top, Some(tag), &mut Vec::new(), &mut job).await?;
        return job.tell(&digest);
    }
    let archive = Arc::into_inner(archive).context("the archive is in use")?;
    import_legacy(Legacy::find(archive, name.as_deref())?, &target, &tag, job).await
}

/// The image of a layout in the archive, if there is one and everything that it names is there: docker writes indexes of which it holds
/// one platform.
fn whole_layout(
    archive: &Archive,
    name: Option<&str>,
    path: &Path,
) -> anyhow::Result<Option<Descriptor>> {
    if archive.size("oci-layout").is_none() {
        return Ok(None);
    }
    let index = archive.read("index.json", INDEX_LIMIT)?;
    let index: Value = serde_json::from_slice(&index).context("read index.json")?;
    match layout::pick(&index, name, path) {
        Ok(top) if is_whole(archive, &top, 0)? => Ok(Some(top)),
        // The older form has names of its own, and may be whole.
        _ if archive.size("manifest.json").is_some() => Ok(None),
        Ok(top) => bail!("{} does not hold all of {}", path.display(), top.digest),
        Err(error) => Err(error),
    }
}

fn is_whole(archive: &Archive, one: &Descriptor, depth: usize) -> anyhow::Result<bool> {
    let is_here = |part: &Descriptor| archive.size(&place(&part.digest)).is_some();
    let kind = media_type::essence(&one.media_type);
    if !is_here(one) {
        return Ok(false);
    }
    if depth >= DEPTH || !(media_type::is_manifest(&kind) || media_type::is_index(&kind)) {
        return Ok(true);
    }
    let bytes = verified(archive, &one.digest)?;
    let document = Document::parse(&kind, &bytes);
    match document.with_context(|| format!("read manifest {}", one.digest))? {
        Document::Manifest(manifest) => {
            let mut parts = std::iter::once(&manifest.config).chain(&manifest.layers);
            Ok(parts.all(|part| !part.urls.is_empty() || is_here(part)))
        }
        Document::Index(index) => {
            for child in &index.manifests {
                if !is_whole(archive, child, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

async fn import_legacy(
    legacy: Legacy,
    target: &Repository,
    tag: &str,
    mut job: Job,
) -> anyhow::Result<ExitCode> {
    let legacy = Arc::new(legacy);
    let mut layers = Vec::new();
    for at in 0..legacy.len() {
        let this = Arc::clone(&legacy);
        let layer = task::blocking("read a layer", move || this.layer(at));
        let (descriptor, file) = layer.await?;
        let mut file = tokio::fs::File::from_std(file);
        job.named([&descriptor]);
        push(target, &descriptor, &mut file, &mut job).await?;
        layers.push(descriptor);
    }
    let config = Descriptor::of(media_type::DOCKER_CONFIG, &legacy.config);
    job.named([&config]);
    push(target, &config, &mut legacy.config.as_ref(), &mut job).await?;
    let (digest, bytes) = legacy.manifest(&layers);
    let kind = media_type::DOCKER_MANIFEST;
    target.push_manifest(tag, kind, bytes).await?;
    job.carried_manifest();
    job.tell(&digest)
}

async fn push(
    target: &Repository,
    part: &Descriptor,
    reader: &mut (dyn tokio::io::AsyncRead + Send + Unpin),
    job: &mut Job,
) -> anyhow::Result<()> {
    if target.has_blob(&part.digest).await? {
        job.was_there(part);
        return Ok(());
    }
    let mut reader = job.reading(part, reader);
    target.push_blob_from(part, &mut reader).await?;
    job.carried_blob();
    Ok(())
}

/// Writes the image of one platform into an archive.
pub(super) async fn export(
    source: &Repository,
    path: &Path,
    platform: Option<&str>,
    mut job: Job,
) -> anyhow::Result<ExitCode> {
    let wanted = match platform {
        None => Platform::host(),
        Some(text) => Platform::parse(text).ok_or_else(|| {
            anyhow::Error::new(Usage(format!("{text:?} is not OS/ARCHITECTURE[/VARIANT]")))
        })?,
    };
    let mut read: Read = source.resolve().await?.into();
    if let Document::Index(index) = &read.document {
        let chosen = index.select(&wanted).with_context(|| {
            let all = index.platforms();
            let all: Vec<_> = all.iter().map(ToString::to_string).collect();
            format!(
                "the image is not built for {wanted}; it is built for {}: choose with --platform",
                all.join(", ")
            )
        })?;
        read = source.manifest(&chosen.digest).await?.into();
    }
    let Document::Manifest(manifest) = &read.document else {
        bail!("{} lies in an index in an index", read.digest);
    };
    ensure!(
        media_type::is_image_config(&manifest.config.media_type),
        "this is no image but {}: an OCI image layout takes it",
        manifest.config.media_type
    );
    job.named(std::iter::once(&manifest.config).chain(&manifest.layers));
    let mut pack = Pack::create(path)?;
    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
        ensure!(
            part.urls.is_empty(),
            "{} is to be fetched from elsewhere",
            part.digest
        );
        if pack.has(&part.digest) {
            job.was_there(part);
        } else {
            let reader = source.blob(part, 0).await?.into_reader();
            let mut reader = job.reading(part, reader);
            pack.blob(part, &mut reader).await?;
            job.carried_blob();
        }
    }
    let size = read.bytes.len() as u64;
    let top = Descriptor::new(read.media_type.clone(), read.digest.clone(), size);
    pack.blob(&top, &mut read.bytes.as_ref()).await?;
    job.carried_manifest();
    let reference = source.reference();
    let target = reference.target();
    let is_tag = Digest::parse(&target).is_err();
    let full = is_tag.then(|| reference.to_string());
    let tag = is_tag.then_some(target.as_str());
    let layers = &manifest.layers;
    pack.finish(&top, &manifest.config, layers, tag, full.as_deref())
        .await?;
    job.tell(&read.digest)
}
