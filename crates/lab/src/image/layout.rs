//! An image as an OCI layout: a folder that skopeo, crane and podman read.

use std::io;
use std::path::Path;

use serde_json::json;

use super::builder::Image;

impl Image {
    /// Writes the image as an OCI layout into a folder, which is made if it is not there; `tag` names it in `index.json`.
    pub fn write_oci_layout(&self, folder: &Path, tag: &str) -> io::Result<()> {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        for blob in self
            .blobs
            .iter()
            .chain(&self.children)
            .chain([&self.manifest])
        {
            let name = blob.digest.strip_prefix("sha256:").unwrap_or(&blob.digest);
            std::fs::write(blobs.join(name), &blob.bytes)?;
        }
        std::fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        let mut entry = self.manifest.descriptor();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        std::fs::write(folder.join("index.json"), index.to_string())
    }
}
