//! Layers.

use std::path::Path;

use jiff::Timestamp;
use towline_oci::Digest;
use towline_store::{Damage, Store};

use crate::support::{info, is_empty, layer, store, strict};

#[test]
fn a_layer_is_visible_only_under_its_own_diff_id() {
    let (dir, store) = store();
    let diff_id = Digest::of(b"right");
    let staged = store.begin_layer(&diff_id).unwrap();
    std::fs::write(staged.path().join("file"), "x").unwrap();
    assert!(store.layer_path(&diff_id).is_none());
    assert!(staged.commit(&Digest::of(b"wrong"), &info(1)).is_err());
    assert!(store.layer_path(&diff_id).is_none());
    assert!(is_empty(&dir.path().join("store/staging")));

    let staged = store.begin_layer(&diff_id).unwrap();
    drop(staged);
    assert!(is_empty(&dir.path().join("store/staging")));
    layer(&store, "right");
    let path = store.layer_path(&diff_id).unwrap();
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"right");
    assert_eq!(store.layer_info(&diff_id).unwrap().size, 5);
}

#[test]
fn the_same_layer_twice_is_one_layer() {
    let (dir, store) = store();
    let diff_id = Digest::of(b"same");
    let (one, two) = (
        store.begin_layer(&diff_id).unwrap(),
        store.begin_layer(&diff_id).unwrap(),
    );
    std::fs::write(one.path().join("file"), "one").unwrap();
    one.commit(&diff_id, &info(3)).unwrap();
    two.commit(&diff_id, &info(0)).unwrap();
    let path = store.layer_path(&diff_id).unwrap();
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"one");
    assert_eq!(store.usage().unwrap().layer_count, 1);
    assert!(is_empty(&dir.path().join("store/staging")));
}

#[test]
fn half_a_layer_is_removed_at_the_next_open() {
    let (dir, store) = store();
    let root = dir.path().join("store");
    let whole = layer(&store, "whole");
    let half = Digest::of(b"half");
    drop(store);
    // As a tool, or a file system after a power cut, might leave it.
    std::fs::create_dir_all(root.join("layers/sha256").join(half.hex()).join("fs")).unwrap();
    std::fs::create_dir_all(root.join("staging/layer-0/fs/deep")).unwrap();
    std::fs::write(root.join("staging/blob-1"), "x").unwrap();
    let store = towline_store::Store::open(&root).unwrap();
    assert!(store.layer_path(&half).is_none());
    assert!(store.layer_path(&whole).is_some());
    assert!(is_empty(&root.join("staging")));
    std::fs::remove_file(
        root.join("layers/sha256")
            .join(whole.hex())
            .join("layer.json"),
    )
    .unwrap();
    assert_eq!(store.verify().unwrap(), [Damage::Layer(whole)]);
}

#[test]
fn a_sealed_layer_outlives_the_process_and_has_no_name_before_it_is_durable() {
    let (dir, store) = store();
    let root = dir.path().join("store");
    let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
    for diff_id in [&first, &second] {
        let staged = store.begin_layer(diff_id).unwrap();
        std::fs::write(staged.path().join("file"), "x").unwrap();
        staged.seal(diff_id, &info(7)).unwrap();
        assert!(store.has_layer(diff_id));
        assert!(store.layer_path(diff_id).is_none());
    }
    assert_eq!(store.unsettled(), 14);
    // As a kill would leave it; the second as if the machine had been started anew since.
    drop(store);
    let staging = root.join("staging");
    for entry in std::fs::read_dir(&staging).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(second.hex()) {
            let boot = name.split('-').nth(1).unwrap();
            let other = name.replace(boot, "0123456789abcdef0123456789abcdef");
            std::fs::rename(staging.join(&name), staging.join(other)).unwrap();
        }
    }
    let store = towline_store::Store::open(&root).unwrap();
    assert_eq!(store.layer_info(&first).unwrap().size, 7);
    assert!(store.layer_path(&first).unwrap().join("file").exists());
    assert!(!store.has_layer(&second));
    assert_eq!(store.unsettled(), 0);
    assert!(is_empty(&staging));
}

/// A collection takes a while where a layer has many files. Whoever pulls meanwhile does not wait for its end: if it did, no round of these could
/// end with the collected layer half removed.
#[test]
fn a_collection_holds_up_no_pull() {
    let place = Path::new("/dev/shm");
    let dir = tempfile::tempdir_in(place)
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let store = strict(&dir.path().join("store"));
    let beside = (0..10).any(|round| pulls_beside_a_collection(&store, round));
    assert!(beside, "every pull waited for the end of the collection");
}

/// Whether a layer and an image were put in while another layer was being removed.
fn pulls_beside_a_collection(store: &Store, round: u32) -> bool {
    let unused = Digest::of(format!("unused {round}").as_bytes());
    let staged = store.begin_layer(&unused).unwrap();
    for n in 0..20_000 {
        std::fs::File::create(staged.path().join(n.to_string())).unwrap();
    }
    staged.commit(&unused, &info(0)).unwrap();
    let removed = || {
        let staging = std::fs::read_dir(store.root().join("staging")).unwrap();
        let mut names = staging.map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with("removed"))
    };
    std::thread::scope(|scope| {
        let collection = scope.spawn(|| store.gc(Timestamp::now()).unwrap());
        while !removed() && !collection.is_finished() {
            std::thread::yield_now();
        }
        let lease = store.lease();
        lease.hold(&Digest::of(format!("new {round}").as_bytes()));
        let new = layer(store, &format!("new {round}"));
        assert!(store.has_layer(&new));
        let beside = removed();
        drop(lease);
        let collected = collection.join().unwrap();
        assert!(store.layer_info(&unused).is_none());
        assert!(collected.layers >= 1, "{collected:?}");
        beside
    })
}
