//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use towline_oci::{Descriptor, Digest, MAX_DOCUMENT_BYTES};
use towline_sys::fs;

/// The annotation that gives an image of a layout its name.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The one that gives it in archives of docker's.
const FULL_NAME: &str = "io.containerd.image.name";
/// The largest index, in bytes.
const INDEX_LIMIT: u64 = 16 << 20;

/// A layout.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// The image with this name in an index, or the only one.
pub(super) fn pick(index: &Value, name: Option<&str>, place: &Path) -> anyhow::Result<Descriptor> {
    let all = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
    let fits = |one: &&Value| {
        let annotations = &one["annotations"];
        name.is_none_or(|name| annotations[NAME] == name || annotations[FULL_NAME] == name)
    };
    let found: Vec<&Value> = all.iter().filter(fits).collect();
    match (found.as_slice(), name) {
        ([one], _) => Ok(serde_json::from_value((*one).clone()).context("read index.json")?),
        ([], Some(name)) => bail!("{} holds no image {name:?}", place.display()),
        ([], None) => bail!("{} holds no image", place.display()),
        _ => bail!(
            "{} holds {} such images: say which with --name",
            place.display(),
            found.len()
        ),
    }
}

impl Layout {
    /// One that is there.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let marker = fs::read_bounded(root.join("oci-layout"), 4096)
            .with_context(|| format!("{} is no OCI image layout", root.display()))?;
        let marker: Value = serde_json::from_slice(&marker).context("read oci-layout")?;
        ensure!(
            marker["imageLayoutVersion"] == "1.0.0",
            "{} is a layout of another version",
            root.display()
        );
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// One that is there, or else a new one.
    pub(super) fn create(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root.join("blobs"))?;
        if !root.join("oci-layout").exists() {
            let empty = json!({"schemaVersion": 2, "manifests": []});
            fs::write_atomic(root.join("index.json"), empty.to_string().as_bytes())?;
            let marker = json!({"imageLayoutVersion": "1.0.0"});
            fs::write_atomic(root.join("oci-layout"), marker.to_string().as_bytes())?;
        }
        Self::open(root)
    }

    fn index(&self) -> anyhow::Result<Value> {
        let bytes = fs::read_bounded(self.root.join("index.json"), INDEX_LIMIT)?;
        let index: Value = serde_json::from_slice(&bytes).context("read index.json")?;
        ensure!(
            index["manifests"].is_array(),
            "index.json lists no manifests"
        );
        Ok(index)
    }

    /// The image with this name, or the only one.
    pub(super) fn find(&self, name: Option<&str>) -> anyhow::Result<Descriptor> {
        pick(&self.index()?, name, &self.root)
    }

    /// Lets a name mean this image.
    pub(super) fn set(&self, name: &str, mut descriptor: Descriptor) -> anyhow::Result<()> {
        let mut index = self.index()?;
        let named = (NAME.to_owned(), name.to_owned());
        descriptor.annotations.extend([named]);
        if let Some(all) = index["manifests"].as_array_mut() {
            all.retain(|one| one["annotations"][NAME] != name);
            all.push(serde_json::to_value(descriptor)?);
        }
        fs::write_atomic(self.root.join("index.json"), index.to_string().as_bytes())?;
        Ok(())
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        let shelf = self.root.join("blobs").join(digest.algorithm().name());
        shelf.join(digest.hex())
    }

    /// Whether a blob is there.
    pub(super) fn has(&self, descriptor: &Descriptor) -> bool {
        let found = std::fs::metadata(self.place(&descriptor.digest));
        found.is_ok_and(|found| found.len() == descriptor.size)
    }

    /// A small blob, verified.
    pub(super) fn read(&self, digest: &Digest) -> anyhow::Result<Bytes> {
        let bytes = fs::read_bounded(self.place(digest), MAX_DOCUMENT_BYTES as u64)?;
        let mut verifier = digest.verifier();
        verifier.update(&bytes);
        ensure!(
            verifier.finish() == *digest,
            "blob {digest} of {} is damaged",
            self.root.display()
        );
        Ok(bytes.into())
    }

    /// A blob for reading; whoever takes it verifies it.
    pub(super) async fn open_blob(&self, digest: &Digest) -> anyhow::Result<tokio::fs::File> {
        let path = self.place(digest);
        let file = tokio::fs::File::open(&path).await;
        file.with_context(|| format!("open {}", path.display()))
    }

    /// Keeps a blob under its name once it is verified.
    pub(super) async fn write(
        &self,
        descriptor: &Descriptor,
        reader: &mut (dyn AsyncRead + Send + Unpin),
    ) -> anyhow::Result<()> {
        let path = self.place(&descriptor.digest);
        let shelf = self
            .root
            .join("blobs")
            .join(descriptor.digest.algorithm().name());
        fs::create_dir_all(&shelf)?;
        let half = shelf.join(format!(".{}.half", descriptor.digest.hex()));
        let mut file = tokio::fs::File::create(&half)
            .await
            .with_context(|| format!("write {}", half.display()))?;
        let mut verifier = descriptor.digest.verifier();
        let mut reader = reader.take(descriptor.size.saturating_add(1));
        let mut buffer = vec![0; 256 << 10];
        loop {
            let length = reader.read(&mut buffer).await.context("read a blob")?;
            if length == 0 {
                break;
            }
            verifier.update(&buffer[..length]);
            file.write_all(&buffer[..length])
                .await
                .context("write a blob")?;
        }
        file.sync_all().await.context("write a blob")?;
        if verifier.finish() != descriptor.digest {
            fs::remove_file(&half)?;
            bail!("the bytes of {} have another digest", descriptor.digest);
        }
        fs::rename(half, path)?;
        Ok(())
    }
}
