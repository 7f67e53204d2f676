//! A store in a directory of its own, and things to put into it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use towline_oci::Digest;
use towline_store::{ImageRecord, LayerInfo, Options, Store};

pub(crate) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// No grace: what nothing uses goes at once.
pub(crate) fn strict(root: &Path) -> Store {
    let options = Options {
        grace: Duration::ZERO,
        ..Options::default()
    };
    Store::open_with(root, options).unwrap()
}

/// Puts in a layer of one file.
pub(crate) fn layer(store: &Store, text: &str) -> Digest {
    let diff_id = Digest::of(text.as_bytes());
    let staged = store.begin_layer(&diff_id).unwrap();
    std::fs::write(staged.path().join("file"), text).unwrap();
    staged.commit(&diff_id, &info(text.len() as u64)).unwrap();
    diff_id
}

pub(crate) fn info(size: u64) -> LayerInfo {
    LayerInfo {
        size,
        entries: 1,
        opaque_root: false,
        created: Timestamp::now(),
    }
}

/// Puts in an image of these layers under this name.
pub(crate) fn image(store: &Store, name: &str, layers: &[Digest]) -> ImageRecord {
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","author":"{name}","rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
        list(layers)
    );
    let id = Digest::of(config.as_bytes());
    let described: Vec<String> = layers
        .iter()
        .map(|layer| format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":1}}"#))
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{id}","size":{}}},"layers":[{}]}}"#,
        config.len(),
        described.join(",")
    );
    let digest = Digest::of(manifest.as_bytes());
    store.put_blob(&id, config.as_bytes()).unwrap();
    store.put_blob(&digest, manifest.as_bytes()).unwrap();
    let record = ImageRecord {
        id,
        manifest: digest,
        config,
        names: vec![name.to_owned()],
        repo_digests: Vec::new(),
        sources: Vec::new(),
        diff_ids: layers.to_vec(),
        blobs: Vec::new(),
        size: 1,
        pinned: false,
        created: Timestamp::now(),
        last_used: Timestamp::now(),
    };
    store.record(record.clone()).unwrap();
    record
}

fn list(layers: &[Digest]) -> String {
    let quoted: Vec<String> = layers.iter().map(|layer| format!("\"{layer}\"")).collect();
    format!("[{}]", quoted.join(","))
}

pub(crate) fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
