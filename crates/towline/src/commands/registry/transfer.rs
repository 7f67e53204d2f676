//! `towline registry copy`, `export` and `import`: an image, every platform of it, from one place to another.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use towline_distribution::Repository;
use towline_oci::{Descriptor, Digest, Document, media_type};

use super::archive::{self, Archive};
use super::carry_archive;
use super::layout::Layout;
use super::progress::Job;
use crate::exit::Usage;
use crate::output::Format;
use crate::registry_client::RegistryArgs;

/// How deep indexes may lie in each other.
const DEPTH: usize = 8;
/// Manifests that one copy carries because they refer to others.
const REFERRERS: usize = 10_000;

/// Copy an image with all its platforms from one registry to another
#[derive(clap::Args)]
pub(super) struct CopyArgs {
    /// The image
    from: String,
    /// Where it goes
    to: String,
    /// Copy what refers to it and to its platforms too, and what refers to that: signatures, attestations
    #[arg(long)]
    referrers: bool,
    /// User and password for the registry that it goes to, if not those for both
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "TOWLINE_TO_CREDS",
        hide_env_values = true
    )]
    to_creds: Option<String>,
    /// How to print what came of it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

/// Write an image with all its platforms into an OCI image layout, or for one platform into an archive that docker and podman load
#[derive(clap::Args)]
pub(super) struct ExportArgs {
    /// The image
    image: String,
    /// The layout's directory, made if it is not there; or `docker-archive:FILE`
    #[arg(value_name = "LAYOUT|docker-archive:FILE")]
    layout: String,
    /// The image's name in it; its tag, unless said
    #[arg(long)]
    name: Option<String>,
    /// The platform for an archive, such as `linux/arm64`; this machine's, unless said
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// How to print what came of it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

/// Push an image with all its platforms from an OCI image layout, or what an archive of docker, podman or skopeo holds
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// The layout's directory, or the archive's file
    #[arg(value_name = "LAYOUT|FILE")]
    layout: String,
    /// Where it goes
    image: String,
    /// The image's name in the layout, if it holds several
    #[arg(long)]
    name: Option<String>,
    /// How to print what came of it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    client: RegistryArgs,
}

/// Where an image is, or goes.
pub(super) enum Place {
    Registry(Box<Repository>),
    Layout(Layout),
    /// An archive that holds a layout; only read.
    Archive(Arc<Archive>),
}

/// A manifest as it was read, verified.
pub(super) struct Read {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) document: Document,
    pub(super) bytes: Bytes,
}

pub(super) async fn copy(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let source = super::repository(&args.client, &args.from).await?;
    let mut client = args.client.clone();
    client.creds = args.to_creds.or(client.creds);
    let target = super::repository(&client, &args.to).await?;
    let tag = target.reference().target();
    let (from, to) = (
        Place::Registry(Box::new(source)),
        Place::Registry(Box::new(target)),
    );
    let mut job = Job::begin(format!("copying {}", args.from), args.output);
    let top = from.top().await?;
    let digest = top.digest.clone();
    let mut all = Vec::new();
    carry(&from, &to, top, Some(tag), &mut all, &mut job).await?;
    if args.referrers {
        carry_referrers(&from, &to, all, &mut job).await?;
    }
    job.tell(&digest)
}

/// Carries what refers to manifests that were carried, and what refers to that.
async fn carry_referrers(
    from: &Place,
    to: &Place,
    mut open: Vec<Digest>,
    job: &mut Job,
) -> anyhow::Result<()> {
    let Place::Registry(source) = from else {
        return Ok(());
    };
    let mut seen: HashSet<Digest> = open.iter().cloned().collect();
    while let Some(subject) = open.pop() {
        for descriptor in source.referrers(&subject, None).await?.manifests {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            ensure!(
                seen.len() <= REFERRERS,
                "more than {REFERRERS} manifests refer to this image and to each other"
            );
            let read = from.manifest(&descriptor).await?;
            let mut carried = Vec::new();
            carry(from, to, read, None, &mut carried, job).await?;
            list_referrer(to, &subject, descriptor).await?;
            seen.extend(carried.iter().cloned());
            open.extend(carried);
        }
    }
    Ok(())
}

pub(super) async fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let source = super::repository(&args.client, &args.image).await?;
    if let Some(file) = args.layout.strip_prefix(archive::PREFIX) {
        let platform = args.platform.as_deref();
        let job = Job::begin(format!("exporting {}", args.image), args.output);
        return carry_archive::export(&source, Path::new(file), platform, job).await;
    }
    let usage = |text: &str| anyhow::Error::new(Usage(text.to_owned()));
    if args.platform.is_some() {
        return Err(usage(
            "an OCI image layout takes all platforms: --platform is for docker-archive:FILE",
        ));
    }
    let name = args.name.unwrap_or_else(|| source.reference().target());
    let (from, to) = (
        Place::Registry(Box::new(source)),
        Place::Layout(Layout::create(Path::new(&args.layout))?),
    );
    let mut job = Job::begin(format!("exporting {}", args.image), args.output);
    let top = from.top().await?;
    let digest = top.digest.clone();
    carry(&from, &to, top, Some(name), &mut Vec::new(), &mut job).await?;
    job.tell(&digest)
}

pub(super) async fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let prefixes = [archive::PREFIX, "oci-archive:", "oci:"];
    let path = prefixes
        .iter()
        .find_map(|prefix| args.layout.strip_prefix(prefix));
    let path = Path::new(path.unwrap_or(&args.layout));
    let job = Job::begin(format!("importing {}", args.image), args.output);
    if path.is_file() {
        let target = super::repository(&args.client, &args.image).await?;
        return Box::pin(carry_archive::import(path, target, args.name, job)).await;
    }
    let layout = Layout::open(path)?;
    let top = layout.find(args.name.as_deref())?;
    let target = super::repository(&args.client, &args.image).await?;
    let tag = target.reference().target();
    let (from, to) = (Place::Layout(layout), Place::Registry(Box::new(target)));
    let top = from.manifest(&top).await?;
    let digest = top.digest.clone();
    let mut job = job;
    carry(&from, &to, top, Some(tag), &mut Vec::new(), &mut job).await?;
    job.tell(&digest)
}

/// Writes a referrer into the list under the subject's own tag, where a registry has no other: whoever pushes does that there.
async fn list_referrer(to: &Place, subject: &Digest, referrer: Descriptor) -> anyhow::Result<()> {
    let Place::Registry(target) = to else {
        return Ok(());
    };
    let mut list = target.referrers(subject, None).await?;
    if list
        .manifests
        .iter()
        .any(|one| one.digest == referrer.digest)
    {
        return Ok(());
    }
    list.manifests.push(referrer);
    let tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
    let bytes = serde_json::to_vec(&list)?.into();
    target
        .push_manifest(&tag, media_type::OCI_INDEX, bytes)
        .await?;
    Ok(())
}

impl Place {
    /// A blob for reading; whoever takes it verifies it.
    async fn open(&self, part: &Descriptor) -> anyhow::Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(match self {
            Self::Registry(source) => Box::new(source.blob(part, 0).await?.into_reader()),
            Self::Layout(layout) => Box::new(layout.open_blob(&part.digest).await?),
            Self::Archive(archive) => {
                let content = archive.open_part(&archive::place(&part.digest))?;
                let length = content.limit();
                Box::new(tokio::fs::File::from_std(content.into_inner()).take(length))
            }
        })
    }

    async fn top(&self) -> anyhow::Result<Read> {
        match self {
            Self::Registry(repository) => Ok(repository.resolve().await?.into()),
            Self::Layout(layout) => self.manifest(&layout.find(None)?).await,
            Self::Archive(_) => bail!("an archive is only read by name"),
        }
    }

    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> anyhow::Result<Read> {
        match self {
            Self::Registry(repository) => Ok(repository.manifest(&descriptor.digest).await?.into()),
            Self::Layout(_) | Self::Archive(_) => {
                let bytes = match self {
                    Self::Layout(layout) => layout.read(&descriptor.digest)?,
                    Self::Archive(archive) => archive::verified(archive, &descriptor.digest)?,
                    Self::Registry(_) => Bytes::new(),
                };
                let document = Document::parse(&descriptor.media_type, &bytes)
                    .with_context(|| format!("read manifest {}", descriptor.digest))?;
                Ok(Read {
                    digest: descriptor.digest.clone(),
                    media_type: descriptor.media_type.clone(),
                    document,
                    bytes,
                })
            }
        }
    }

    pub(super) async fn keep(&self, read: &Read, name: Option<&str>) -> anyhow::Result<()> {
        match self {
            Self::Registry(repository) => {
                let target = name.map_or_else(|| read.digest.to_string(), str::to_owned);
                let kept = repository.push_manifest(&target, &read.media_type, read.bytes.clone());
                kept.await?;
            }
            Self::Layout(layout) => {
                let size = read.bytes.len() as u64;
                let descriptor =
                    Descriptor::new(read.media_type.clone(), read.digest.clone(), size);
                layout.write(&descriptor, &mut read.bytes.as_ref()).await?;
                if let Some(name) = name {
                    layout.set(name, descriptor)?;
                }
            }
            Self::Archive(_) => bail!("an archive is only read"),
        }
        Ok(())
    }
}

impl From<towline_distribution::Resolved> for Read {
    fn from(resolved: towline_distribution::Resolved) -> Self {
        Self {
            digest: resolved.digest,
            media_type: resolved.media_type,
            document: resolved.document,
            bytes: resolved.bytes,
        }
    }
}

/// Carries a manifest and all below it, and says which manifests that were: what is named before what names it, so that the other
/// side never holds a part.
pub(super) async fn carry(
    from: &Place,
    to: &Place,
    read: Read,
    name: Option<String>,
    all: &mut Vec<Digest>,
    job: &mut Job,
) -> anyhow::Result<()> {
    below(from, to, &read, 0, all, job).await?;
    keep(to, &read, name.as_deref(), all, job).await
}

async fn keep(
    to: &Place,
    read: &Read,
    name: Option<&str>,
    all: &mut Vec<Digest>,
    job: &mut Job,
) -> anyhow::Result<()> {
    to.keep(read, name).await?;
    job.carried_manifest();
    all.push(read.digest.clone());
    Ok(())
}

/// Carries what a manifest names.
fn below<'a>(
    from: &'a Place,
    to: &'a Place,
    read: &'a Read,
    depth: usize,
    all: &'a mut Vec<Digest>,
    job: &'a mut Job,
) -> BoxFuture<'a, anyhow::Result<()>> {
    Box::pin(async move {
        ensure!(
            depth < DEPTH,
            "indexes lie more than {DEPTH} deep in each other"
        );
        match &read.document {
            Document::Manifest(manifest) => {
                let parts = || std::iter::once(&manifest.config).chain(&manifest.layers);
                job.named(parts().filter(|part| !is_elsewhere(part)));
                for part in parts() {
                    blob(from, to, part, job).await?;
                }
            }
            Document::Index(index) => {
                for part in &index.manifests {
                    // An index may name blobs too.
                    let kind = media_type::essence(&part.media_type);
                    if media_type::is_manifest(&kind) || media_type::is_index(&kind) {
                        let child = from.manifest(part).await?;
                        below(from, to, &child, depth + 1, all, job).await?;
                        keep(to, &child, None, all, job).await?;
                    } else {
                        job.named([part]);
                        blob(from, to, part, job).await?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Whether a blob is fetched from elsewhere by whoever runs the image.
fn is_elsewhere(part: &Descriptor) -> bool {
    !part.urls.is_empty() || part.media_type.contains("nondistributable")
}

async fn blob(from: &Place, to: &Place, part: &Descriptor, job: &mut Job) -> anyhow::Result<()> {
    if is_elsewhere(part) {
        return Ok(());
    }
    let there = match to {
        Place::Registry(target) => {
            target.has_blob(&part.digest).await? || mounted(from, target, part).await?
        }
        Place::Layout(layout) => layout.has(part),
        Place::Archive(_) => false,
    };
    if there {
        job.was_there(part);
        return Ok(());
    }
    let mut reader = job.reading(part, from.open(part).await?);
    match to {
        Place::Registry(target) => target.push_blob_from(part, &mut reader).await?,
        Place::Layout(layout) => layout.write(part, &mut reader).await?,
        Place::Archive(_) => bail!("an archive is only read"),
    }
    job.carried_blob();
    Ok(())
}

/// Within one registry nothing needs to be carried.
async fn mounted(from: &Place, target: &Repository, part: &Descriptor) -> anyhow::Result<bool> {
    let Place::Registry(source) = from else {
        return Ok(false);
    };
    let (source, own) = (source.reference(), target.reference());
    if source.api_host() != own.api_host() || source.repository() == own.repository() {
        return Ok(false);
    }
    Ok(target.mount(&part.digest, source.repository()).await?)
}
