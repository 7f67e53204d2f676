//! An archive as it is written: an OCI image layout and docker's older form over the same blobs.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::place;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use towline_oci::{Algorithm, Descriptor, Digest};

/// An archive that is being written; it has its name once it is whole.
#[derive(Debug)]
pub(in super::super) struct Pack {
    file: BufWriter<File>,
    path: PathBuf,
    half: tempfile::TempPath,
    written: HashSet<Digest>,
}

impl Pack {
    /// Begins an archive where there is no file yet.
    pub(in super::super) fn create(path: &Path) -> anyhow::Result<Self> {
        ensure!(!path.exists(), "{} is there already", path.display());
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let half = tempfile::Builder::new()
            .prefix(".half-")
            // As for any new file: the process's mask takes away what others may not.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder);
        let half = half.with_context(|| format!("write into {}", folder.display()))?;
        let (file, half) = half.into_parts();
        Ok(Self {
            file: BufWriter::with_capacity(256 << 10, File::from_std(file)),
            path: path.to_owned(),
            half,
            written: HashSet::new(),
        })
    }

    async fn header(&mut self, name: &str, size: u64) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        Ok(self.file.write_all(header.as_bytes()).await?)
    }

    async fn pad(&mut self, size: u64) -> anyhow::Result<()> {
        let rest = size.next_multiple_of(512) - size;
        let zeros = [0; 512];
        let rest = usize::try_from(rest).unwrap_or_default();
        Ok(self.file.write_all(&zeros[..rest]).await?)
    }

    /// Whether a blob need not be written again.
    pub(in super::super) fn has(&self, digest: &Digest) -> bool {
        self.written.contains(digest)
    }

    /// Writes a blob, which must be what its descriptor says.
    pub(in super::super) async fn blob(
        &mut self,
        descriptor: &Descriptor,
        reader: &mut (dyn AsyncRead + Send + Unpin),
    ) -> anyhow::Result<()> {
        let Descriptor { digest, size, .. } = descriptor;
        ensure!(
            digest.algorithm() == Algorithm::Sha256,
            "docker's archives have no place for {digest}"
        );
        self.header(&place(digest), *size).await?;
        let mut verifier = digest.verifier();
        let mut reader = reader.take(*size);
        let mut buffer = vec![0; 256 << 10];
        let mut written = 0;
        loop {
            let length = reader.read(&mut buffer).await.context("read a blob")?;
            if length == 0 {
                break;
            }
            verifier.update(&buffer[..length]);
            written += length as u64;
            self.file.write_all(&buffer[..length]).await?;
        }
        ensure!(written == *size, "{digest} has {written} bytes, not {size}");
        ensure!(
            verifier.finish() == *digest,
            "the bytes of {digest} have another digest"
        );
        self.pad(*size).await?;
        self.written.insert(digest.clone());
        Ok(())
    }

    async fn text(&mut self, name: &str, text: &Value) -> anyhow::Result<()> {
        let text = text.to_string();
        let size = text.len() as u64;
        self.header(name, size).await?;
        self.file.write_all(text.as_bytes()).await?;
        self.pad(size).await
    }

    /// Ends the archive: this image, under these names.
    pub(in super::super) async fn finish(
        mut self,
        manifest: &Descriptor,
        config: &Descriptor,
        layers: &[Descriptor],
        tag: Option<&str>,
        full: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut top = json!({"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size});
        if let (Some(tag), Some(full)) = (tag, full) {
            top["annotations"] =
                json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": full});
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top]});
        let paths: Vec<_> = layers.iter().map(|layer| place(&layer.digest)).collect();
        let tags: Option<Vec<_>> = full.map(|full| vec![full]);
        let image = json!([{"Config": place(&config.digest), "RepoTags": tags, "Layers": paths}]);
        self.text("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))
            .await?;
        self.text("index.json", &index).await?;
        self.text("manifest.json", &image).await?;
        self.file.write_all(&[0; 1024]).await?;
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        let path = self.path;
        let kept = self.half.persist_noclobber(&path);
        kept.with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }
}
