//! Archives of images in one file: what `docker save`, `podman save` and skopeo's `docker-archive:` and `oci-archive:` write.
//!
//! A file that holds an OCI image layout is carried as it is, so that digests stay. One that is only the older form is read by its
//! `manifest.json`: layers are checked against the diffIDs of the config, which goes unchanged, so that the image's ID stays. What is
//! written is both forms at once, over the same blobs. Archives are hostile until checked: see [`index`].

mod index;
mod legacy;
mod pack;

use anyhow::ensure;
use bytes::Bytes;
use towline_oci::{Digest, MAX_DOCUMENT_BYTES};

pub(super) use index::Archive;
pub(super) use legacy::Legacy;
pub(super) use pack::Pack;

/// How a path says that it is such a file, in skopeo's words.
pub(super) const PREFIX: &str = "docker-archive:";

/// Where a blob is in an archive that holds a layout.
pub(super) fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A small blob of an archive.
pub(super) fn verified(archive: &Archive, digest: &Digest) -> anyhow::Result<Bytes> {
    let bytes = archive.read(&place(digest), MAX_DOCUMENT_BYTES)?;
    let mut verifier = digest.verifier();
    verifier.update(&bytes);
    ensure!(
        verifier.finish() == *digest,
        "blob {digest} of the archive is damaged"
    );
    Ok(bytes)
}
