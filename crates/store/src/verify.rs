//! Looking for damage, and making records again from what is on disk.

use std::io::Read as _;

use jiff::Timestamp;
use towline_oci::{Digest, Document, ImageConfig, MAX_DOCUMENT_BYTES, Manifest, media_type};
use towline_sys::fs::{self, At as _};

use crate::layer::read_info;
use crate::layout::digests_in;
use crate::state::Inner;
use crate::{ImageRecord, StoreError};

/// Something in the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A blob's bytes have another digest.
    Blob {
        /// Its name.
        digest: Digest,
        /// What its bytes hash to.
        actual: Digest,
    },
    /// A layer is not whole.
    Layer(Digest),
    /// An image needs something that is not here.
    Image {
        /// The image.
        id: Digest,
        /// What is not here.
        missing: Digest,
    },
}

/// Compares every blob with its digest and every record with what it needs. Unpacked layers have no digest of their own as files; only
/// that they are there is looked at.
pub(crate) fn verify(store: &Inner) -> Result<Vec<Damage>, StoreError> {
    let mut damage = Vec::new();
    let blobs = digests_in(&store.layout.blobs())?;
    for digest in &blobs {
        let actual = hash(store, digest)?;
        if actual.as_ref().is_some_and(|actual| actual != digest) {
            damage.extend(actual.map(|actual| Damage::Blob {
                digest: digest.clone(),
                actual,
            }));
        }
    }
    let (images, layers) = {
        let state = store.state();
        let images: Vec<ImageRecord> = state.images.values().cloned().collect();
        let layers: Vec<Digest> = state.layers.keys().cloned().collect();
        (images, layers)
    };
    for digest in &layers {
        if read_info(&store.layout.layer(digest))?.is_none() {
            damage.push(Damage::Layer(digest.clone()));
        }
    }
    for image in images {
        let needs = image.diff_ids.iter().map(|digest| (digest, &layers));
        let needs = needs.chain([&image.id, &image.manifest].map(|digest| (digest, &blobs)));
        for (missing, _) in needs.filter(|(digest, have)| !have.contains(digest)) {
            damage.push(Damage::Image {
                id: image.id.clone(),
                missing: missing.clone(),
            });
        }
    }
    Ok(damage)
}

/// What a blob hashes to; `None` where it went meanwhile.
fn hash(store: &Inner, digest: &Digest) -> Result<Option<Digest>, StoreError> {
    let path = store.layout.blob(digest);
    let mut file = match fs::open(&path) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let mut verifier = digest.verifier();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer).at("read", &path)? {
            0 => return Ok(Some(verifier.finish())),
            read => verifier.update(&buffer[..read]),
        }
    }
}

/// Makes records again from manifests, configs and layers that are here. Names are lost with the database: the images have none until they
/// are pulled again, which then downloads no layer.
pub(crate) fn rebuild(store: &Inner) -> Result<(), StoreError> {
    for digest in digests_in(&store.layout.blobs())? {
        let Ok(bytes) = fs::read_bounded(store.layout.blob(&digest), MAX_DOCUMENT_BYTES as u64)
        else {
            continue;
        };
        let Some(record) = as_manifest(&bytes).and_then(|found| record_of(store, &digest, &found))
        else {
            continue;
        };
        store.records.change(&[&record], None)?;
        store.state().images.insert(record.id.clone(), record);
    }
    Ok(())
}

fn as_manifest(bytes: &[u8]) -> Option<Manifest> {
    [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST]
        .into_iter()
        .find_map(|media_type| match Document::parse(media_type, bytes) {
            Ok(Document::Manifest(manifest)) => Some(manifest),
            _ => None,
        })
}

fn record_of(store: &Inner, digest: &Digest, manifest: &Manifest) -> Option<ImageRecord> {
    let path = store.layout.blob(&manifest.config.digest);
    let bytes = fs::read_bounded(path, 4 << 20).ok()?;
    if Digest::of(&bytes) != manifest.config.digest {
        return None;
    }
    let config = ImageConfig::parse(&bytes).ok()?;
    let state = store.state();
    let here = |diff_id| state.layers.contains_key(diff_id);
    let whole = config.diff_ids().len() == manifest.layers.len();
    if !whole || !config.diff_ids().iter().all(here) {
        return None;
    }
    let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
    Some(ImageRecord {
        id: manifest.config.digest.clone(),
        manifest: digest.clone(),
        config: String::from_utf8(bytes).ok()?,
        names: Vec::new(),
        repo_digests: Vec::new(),
        diff_ids: config.diff_ids().to_vec(),
        size: layers.saturating_add(manifest.config.size),
        pinned: false,
        created: Timestamp::now(),
        last_used: Timestamp::now(),
    })
}
