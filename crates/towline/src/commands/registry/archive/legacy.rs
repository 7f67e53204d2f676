//! The older form: `manifest.json` names a config and uncompressed layers.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::json;
use towline_oci::{Descriptor, Digest, ImageConfig, Verifier, media_type};

use super::index::Archive;

/// The largest `manifest.json`, in bytes.
const MANIFEST_LIMIT: usize = 16 << 20;
/// The largest config, in bytes.
const CONFIG_LIMIT: usize = 4 << 20;
/// Layers of one image.
const LAYERS: usize = 1000;
/// The largest layer when it is decompressed, in bytes.
const LAYER_LIMIT: u64 = 64 << 30;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An archive of the older form, and the image in it that is meant.
#[derive(Debug)]
pub(in super::super) struct Legacy {
    pub(in super::super) archive: Archive,
    layers: Vec<String>,
    diff_ids: Vec<Digest>,
    pub(in super::super) config: Bytes,
}

impl Legacy {
    /// The image with this name, or the only one.
    pub(in super::super) fn find(archive: Archive, name: Option<&str>) -> anyhow::Result<Self> {
        let text = archive.read("manifest.json", MANIFEST_LIMIT);
        let text =
            text.context("this is neither an archive of docker's nor an OCI image layout")?;
        let all: Vec<Entry> = serde_json::from_slice(&text).context("read manifest.json")?;
        let has = |entry: &&Entry| {
            let mut tags = entry.repo_tags.iter().flatten();
            name.is_none_or(|name| tags.any(|tag| tag == name))
        };
        let mut found = all.iter().filter(has);
        let entry = match (found.next(), found.next(), name) {
            (Some(entry), None, _) => entry,
            (None, _, Some(name)) => bail!("the archive holds no image {name:?}"),
            (None, _, None) => bail!("the archive holds no image"),
            (Some(_), Some(_), _) => bail!(
                "the archive holds several images: say which with --name: {}",
                all.iter()
                    .flat_map(|entry| entry.repo_tags.iter().flatten())
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        let config = archive.read(&entry.config, CONFIG_LIMIT)?;
        let parsed = ImageConfig::parse(&config).context("read the image's config")?;
        let diff_ids = parsed.diff_ids().to_vec();
        ensure!(
            entry.layers.len() == diff_ids.len() && diff_ids.len() <= LAYERS,
            "manifest.json names {} layers, the config {}",
            entry.layers.len(),
            diff_ids.len()
        );
        for layer in &entry.layers {
            ensure!(
                archive.size(layer).is_some(),
                "the archive holds no file {layer:?}"
            );
        }
        Ok(Self {
            layers: entry.layers.clone(),
            archive,
            diff_ids,
            config,
        })
    }

    /// How many layers there are.
    pub(in super::super) fn len(&self) -> usize {
        self.layers.len()
    }

    /// A layer as it is pushed: compressed, and proven to be the one that the config names. In a file without a name. Blocks.
    pub(in super::super) fn layer(&self, at: usize) -> anyhow::Result<(Descriptor, File)> {
        let (name, expected) = (&self.layers[at], &self.diff_ids[at]);
        let checked = || -> anyhow::Result<_> {
            let mut part = self.archive.open_part(name)?;
            let mut magic = [0; 2];
            let is_gzip = part.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
            let part = io::BufReader::with_capacity(256 << 10, self.archive.open_part(name)?);
            let out = tempfile::tempfile().context("make a temporary file")?;
            let mut out = Hashed::new(out);
            let mut plain = expected.verifier();
            if is_gzip {
                let mut tee = Tee {
                    reader: part,
                    out: &mut out,
                };
                let mut content = GzDecoder::new(&mut tee).take(LAYER_LIMIT);
                hash(&mut content, &mut plain, &mut io::sink())?;
                // What comes after the compressed content belongs to the blob too.
                io::copy(&mut tee, &mut io::sink())?;
            } else {
                let mut encoder = GzEncoder::new(&mut out, Compression::default());
                hash(&mut part.take(LAYER_LIMIT), &mut plain, &mut encoder)?;
                encoder.finish()?;
            }
            let actual = plain.finish();
            ensure!(
                actual == *expected,
                "its diffID is {actual}, the config says {expected}"
            );
            Ok(out)
        };
        let out = checked().with_context(|| format!("read layer {name:?}"))?;
        let (digest, size) = (out.verifier.finish(), out.length);
        let mut file = out.file;
        file.rewind()?;
        let kind = media_type::DOCKER_LAYER_GZIP;
        Ok((Descriptor::new(kind, digest, size), file))
    }

    /// The manifest for these layers.
    pub(in super::super) fn manifest(&self, layers: &[Descriptor]) -> (Digest, Bytes) {
        let config = Descriptor::of(media_type::DOCKER_CONFIG, &self.config);
        let text = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "config": config, "layers": layers});
        let bytes = Bytes::from(text.to_string());
        (Digest::of(&bytes), bytes)
    }
}

fn hash(reader: &mut dyn Read, verifier: &mut Verifier, out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        verifier.update(&buffer[..length]);
        out.write_all(&buffer[..length])?;
    }
}

/// A file, with the hash and length of what was written to it.
struct Hashed {
    file: File,
    verifier: Verifier,
    length: u64,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self {
            file,
            verifier: Verifier::new(towline_oci::Algorithm::Sha256),
            length: 0,
        }
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.verifier.update(&bytes[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes down what is read.
struct Tee<'a, R> {
    reader: R,
    out: &'a mut Hashed,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.out.write_all(&buffer[..length])?;
        Ok(length)
    }
}
