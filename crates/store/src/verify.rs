//! Looking for damage, and making records again from what is on disk.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::io::Read as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towline_oci::{Digest, ImageConfig, MAX_DOCUMENT_BYTES, Manifest};
use towline_sys::fs::{self, At as _};

use crate::layer::read_info;
use crate::layout::digests_in;
use crate::state::Inner;
use crate::{ImageRecord, StoreError, listing};

/// Something in the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
    /// A file of a layer is not what was unpacked.
    File {
        /// The layer's diffID.
        layer: Digest,
        /// Its path in the layer.
        path: String,
        /// What is wrong.
        problem: Cow<'static, str>,
    },
    /// An image needs something that is not here.
    Image {
        /// The image.
        id: Digest,
        /// What is not here.
        missing: Digest,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { digest, actual } => write!(f, "blob {digest}: its bytes hash to {actual}"),
            Self::Layer(layer) => write!(f, "layer {layer}: it is not whole"),
            Self::File {
                layer,
                path,
                problem,
            } => write!(f, "layer {layer}: file {path:?}: {problem}"),
            Self::Image { id, missing } => write!(f, "image {id}: {missing} is not here"),
        }
    }
}

/// What a comparison of the whole store came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// How many lists, files and directories could not be compared: layers of an earlier version have no inventory, and what an image's modes
    /// forbid is closed to whoever is not root.
    pub uncompared: u64,
}

/// Compares every blob with its digest, every layer with its inventory and list of checksums, and every record with what it needs. Images
/// that come and go meanwhile are no damage.
pub(crate) fn verify(store: &Inner) -> Result<Verified, StoreError> {
    let mut damage = Vec::new();
    let mut uncompared = 0;
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
        let dir = store.layout.layer(digest);
        if read_info(&dir)?.is_none() {
            damage.push(Damage::Layer(digest.clone()));
            continue;
        }
        match listing::compare(&dir, digest, &mut damage) {
            Err(_) if !store.state().layers.contains_key(digest) => {}
            other => uncompared += other?,
        }
    }
    for image in images {
        let needs = image.diff_ids.iter().map(|digest| (digest, &layers));
        let needed = image.blobs.iter().chain([&image.id, &image.manifest]);
        let needs = needs.chain(needed.map(|digest| (digest, &blobs)));
        for (missing, _) in needs.filter(|(digest, have)| !have.contains(digest)) {
            damage.push(Damage::Image {
                id: image.id.clone(),
                missing: missing.clone(),
            });
        }
    }
    if !damage.is_empty() {
        damage = forget_what_moved(store, damage)?;
    }
    Ok(Verified { damage, uncompared })
}

/// Leaves out what looks damaged for another reason: it was removed, or came, while the store was read.
fn forget_what_moved(store: &Inner, damage: Vec<Damage>) -> Result<Vec<Damage>, StoreError> {
    let blobs: HashSet<Digest> = digests_in(&store.layout.blobs())?.into_iter().collect();
    let state = store.state();
    let here = |digest: &Digest| blobs.contains(digest) || state.layers.contains_key(digest);
    let still = |damage: &Damage| match damage {
        Damage::Blob { digest, .. } => blobs.contains(digest),
        Damage::Layer(layer) | Damage::File { layer, .. } => state.layers.contains_key(layer),
        Damage::Image { id, missing } => state.images.contains_key(id) && !here(missing),
    };
    Ok(damage.into_iter().filter(still).collect())
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
        let found = Manifest::read(&bytes);
        let Some(record) = found.and_then(|found| record_of(store, &digest, &found)) else {
            continue;
        };
        store.records.change(&[&record], None)?;
        store.state().images.insert(record.id.clone(), record);
    }
    Ok(())
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
    // Where all of them are here, they were kept on purpose.
    let blobs: Vec<Digest> = manifest
        .layers
        .iter()
        .map(|layer| layer.digest.clone())
        .collect();
    let kept = blobs
        .iter()
        .all(|digest| store.layout.blob(digest).is_file());
    Some(ImageRecord {
        id: manifest.config.digest.clone(),
        manifest: digest.clone(),
        config: String::from_utf8(bytes).ok()?,
        names: Vec::new(),
        repo_digests: Vec::new(),
        sources: Vec::new(),
        diff_ids: config.diff_ids().to_vec(),
        blobs: if kept { blobs } else { Vec::new() },
        size: layers.saturating_add(manifest.config.size),
        pinned: false,
        created: Timestamp::now(),
        last_used: Timestamp::now(),
    })
}
