//! Image records, leases, and what is collected.

use jiff::{SignedDuration, Timestamp};
use towline_cause::Cause;
use towline_oci::Digest;
use towline_store::{Damage, Store};

use crate::support::{image, layer, store, strict};

#[test]
fn a_record_needs_what_it_names() {
    let (_dir, store) = store();
    let base = layer(&store, "base");
    let mut record = image(&store, "a", &[base]);
    record.diff_ids.push(Digest::of(b"not here"));
    assert_eq!(
        store.record(record.clone()).unwrap_err().cause(),
        Cause::ImageCollected
    );
    record.diff_ids.pop();
    record.manifest = Digest::of(b"not here");
    assert!(store.record(record).is_err());
}

#[test]
fn a_name_belongs_to_one_image_also_after_a_restart() {
    let (dir, store) = store();
    let base = layer(&store, "base");
    let first = image(&store, "a", std::slice::from_ref(&base));
    let second = image(&store, "b", &[base]);
    store
        .update(&second.id, |record| record.names.push("a".to_owned()))
        .unwrap();
    let check = |store: &Store| {
        assert_eq!(store.image_named("a").unwrap().id, second.id);
        assert_eq!(store.image_named("b").unwrap().id, second.id);
        assert!(store.image(&first.id).unwrap().names.is_empty());
        assert_eq!(store.images().len(), 2);
    };
    check(&store);
    drop(store);
    check(&Store::open(&dir.path().join("store")).unwrap());
}

#[test]
fn nothing_in_use_and_nothing_fresh_is_collected() {
    let (_dir, store) = store();
    let (used, unused, held) = (
        layer(&store, "used"),
        layer(&store, "unused"),
        layer(&store, "held"),
    );
    image(&store, "a", std::slice::from_ref(&used));
    let lease = store.lease();
    lease.hold(&held);
    assert_eq!(
        store.gc(Timestamp::now()).unwrap().layers,
        0,
        "all is fresh"
    );
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(store.gc(later).unwrap().layers, 1);
    assert!(store.layer_path(&unused).is_none());
    assert!(store.layer_path(&used).is_some());
    assert!(store.layer_path(&held).is_some());
    drop(lease);
    assert_eq!(store.gc(later).unwrap().layers, 1);
    assert!(store.layer_path(&held).is_none());
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn removing_an_image_frees_what_only_it_used() {
    let (_dir, store) = store();
    let (shared, own, run) = (
        layer(&store, "shared"),
        layer(&store, "own"),
        layer(&store, "run"),
    );
    let a = image(&store, "a", &[shared.clone(), own.clone()]);
    image(&store, "b", std::slice::from_ref(&shared));
    let c = image(&store, "c", &[shared.clone(), run.clone()]);
    store.hold("container", &c.id).unwrap();
    assert!(store.remove_image(&a.id).unwrap());
    assert!(!store.remove_image(&a.id).unwrap());
    assert!(store.layer_path(&own).is_none());
    assert!(!store.has_blob(&a.id) && !store.has_blob(&a.manifest));
    store.remove_image(&c.id).unwrap();
    assert!(store.layer_path(&run).is_some(), "a container runs on it");
    assert!(store.layer_path(&shared).is_some());
    store.release("container").unwrap();
    assert!(store.image_named("a").is_none());
}

#[test]
fn holds_are_durable_and_their_owners_are_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = strict(dir.path());
    let base = layer(&store, "base");
    let a = image(&store, "a", std::slice::from_ref(&base));
    for owner in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "a\0b",
        &"x".repeat(129),
    ] {
        assert!(store.hold(owner, &a.id).is_err(), "{owner:?}");
        assert!(store.release(owner).is_err(), "{owner:?}");
    }
    assert!(store.hold("c", &Digest::of(b"no image")).is_err());
    store.hold("c", &a.id).unwrap();
    store.remove_image(&a.id).unwrap();
    drop(store);
    let store = strict(dir.path());
    assert_eq!(store.holds(), [("c".to_owned(), a.id)]);
    store.gc(Timestamp::now()).unwrap();
    assert!(store.layer_path(&base).is_some());
    store.release("c").unwrap();
    drop(store);
    let store = strict(dir.path());
    assert_eq!(store.holds(), []);
    assert_eq!(store.gc(Timestamp::now()).unwrap().layers, 1);
}

#[test]
fn a_damaged_lease_is_an_error_and_never_a_missing_one() {
    let (dir, store) = store();
    drop(store);
    let root = dir.path().join("store");
    std::fs::write(root.join("leases/container"), "{").unwrap();
    assert_eq!(
        Store::open(&root).unwrap_err().cause(),
        Cause::ContentStoreCorrupt
    );
}

#[test]
fn damaged_records_are_put_aside_and_images_found_again() {
    let (dir, store) = store();
    let root = dir.path().join("store");
    let base = layer(&store, "base");
    let a = image(&store, "a", std::slice::from_ref(&base));
    store.hold("container", &a.id).unwrap();
    drop(store);
    std::fs::write(root.join("records.redb"), vec![0x55; 64 << 10]).unwrap();
    let store = Store::open(&root).unwrap();
    let found = store.image(&a.id).unwrap();
    assert!(found.names.is_empty(), "names are lost with the records");
    assert_eq!((found.manifest, found.diff_ids), (a.manifest, vec![base]));
    assert_eq!(store.holds().len(), 1);
    assert!(root.join("records.damaged").exists());
    drop(store);
    assert_eq!(Store::open(&root).unwrap().images().len(), 1);
}

#[test]
fn verify_names_what_an_image_misses() {
    let (dir, store) = store();
    let base = layer(&store, "base");
    let a = image(&store, "a", &[base]);
    let path = dir.path().join("store/blobs/sha256").join(a.manifest.hex());
    std::fs::remove_file(path).unwrap();
    let missing = a.manifest;
    assert_eq!(
        store.verify().unwrap(),
        [Damage::Image { id: a.id, missing }]
    );
}

#[test]
fn kept_blobs_stay_with_their_images_and_go_when_they_are_forgotten() {
    let (dir, store) = store();
    let keep = |text: &str| {
        let digest = Digest::of(text.as_bytes());
        store.put_blob(&digest, text.as_bytes()).unwrap();
        digest
    };
    let (own, shared, nobodys) = (keep("own"), keep("shared"), keep("nobody's"));
    let a = image(&store, "a", &[layer(&store, "a")]);
    let b = image(&store, "b", &[layer(&store, "b")]);
    let with = |id: &Digest, blobs: &[&Digest]| {
        let blobs = blobs.iter().copied().cloned().collect();
        store.update(id, |image| image.blobs = blobs).unwrap();
    };
    with(&a.id, &[&own, &shared]);
    with(&b.id, &[&shared]);
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(store.gc(later).unwrap().blobs, 1);
    assert!(store.has_blob(&own) && store.has_blob(&shared) && !store.has_blob(&nobodys));
    let usage = store.usage().unwrap();
    assert_eq!((usage.kept_count, usage.kept), (2, 9));
    assert_eq!(usage.blob_count, 4, "manifests and configs");

    // What is kept is compared, and missed.
    let path = dir.path().join("store/blobs/sha256").join(own.hex());
    std::fs::write(&path, "rot").unwrap();
    let damage = store.verify().unwrap();
    assert!(
        matches!(&damage[..], [Damage::Blob { digest, .. }] if *digest == own),
        "{damage:?}"
    );
    assert!(store.set_aside(&damage[0]).unwrap());
    let missing = own.clone();
    let id = a.id.clone();
    assert_eq!(store.verify().unwrap(), [Damage::Image { id, missing }]);
    let record = store.image(&a.id).unwrap();
    assert_eq!(store.lacking(&record), std::slice::from_ref(&own));
    store.put_blob(&own, b"own").unwrap();
    assert_eq!(store.conclude().unwrap(), []);
    assert_eq!(store.verify().unwrap(), []);

    store.remove_image(&a.id).unwrap();
    assert!(!store.has_blob(&own) && store.has_blob(&shared));
    // A pull in flight uses it.
    let lease = store.lease();
    lease.hold(&shared);
    assert_eq!(store.forget_kept().unwrap().blobs, 0);
    assert!(store.image(&b.id).unwrap().blobs.is_empty());
    drop(lease);
    assert_eq!(store.gc(later).unwrap().blobs, 1);
    assert!(!store.has_blob(&shared));
    assert_eq!(store.verify().unwrap(), []);
}

/// As if nothing was put aside for two hours.
fn age(dir: &std::path::Path) {
    let aside = std::fs::File::open(dir.join("store/aside")).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    aside.set_modified(long_ago).unwrap();
}

#[test]
fn a_repair_is_not_undone_while_its_pulls_go_on_however_long_they_take() {
    let (dir, store) = store();
    let layers = [layer(&store, "first"), layer(&store, "second")];
    image(&store, "a", &layers);
    for layer in &layers {
        assert!(store.set_aside(&Damage::Layer(layer.clone())).unwrap());
    }
    let here = |store: &Store| layers.each_ref().map(|layer| store.has_layer(layer));
    let pull = store.lease();
    pull.hold(&layers[0]);
    age(dir.path());
    store.gc(Timestamp::now()).unwrap();
    assert_eq!(here(&store), [false, false], "a pull of it runs");
    // Its end is a sign of life: the next one may take as long.
    drop(pull);
    store.gc(Timestamp::now()).unwrap();
    assert_eq!(here(&store), [false, false]);
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(here(&store), [false, false], "also in another process");
    // A pull of something else is none.
    let other = store.lease();
    other.hold(&Digest::of(b"other"));
    age(dir.path());
    drop(other);
    store.gc(Timestamp::now()).unwrap();
    assert_eq!(here(&store), [true, true], "nobody goes on with it");
}
