//! Opening.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use towline_store::{Store, StoreError};

use crate::support::store;

#[test]
fn one_process_owns_a_store_and_the_error_says_who() {
    let (dir, store) = store();
    let root = dir.path().join("store");
    let error = Store::open(&root).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(root.to_str().unwrap()), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    let clone = store.clone();
    drop(store);
    assert!(Store::open(&root).is_err(), "a clone is the same store");
    drop(clone);
    Store::open(&root).unwrap();
}

/// A child that a killed owner had just forked keeps the lock for a moment.
#[test]
fn the_lock_of_a_process_that_is_gone_is_waited_for() {
    let (dir, store) = store();
    drop(store);
    let root = dir.path().join("store");
    let held = |by: u32| {
        let mut file = std::fs::File::create(root.join("lock")).unwrap();
        write!(file, "process {by} (/usr/bin/towline)").unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        file
    };
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();

    let file = held(child.id());
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(file);
    });
    drop(Store::open(&root).unwrap());
    later.join().unwrap();

    let file = held(child.id());
    let error = Store::open(&root).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(file);
    Store::open(&root).unwrap();
}

#[test]
fn another_version_or_another_thing_is_refused_and_left_alone() {
    let (dir, store) = store();
    drop(store);
    let root = dir.path().join("store");
    for text in ["towline-store 2\n", "towline-registry 1\n", "what\n"] {
        std::fs::write(root.join("FORMAT"), text).unwrap();
        assert!(
            matches!(Store::open(&root), Err(StoreError::Format(_))),
            "{text}"
        );
    }
    std::fs::write(root.join("FORMAT"), "towline-store 1\n").unwrap();
    Store::open(&root).unwrap();
}

#[test]
fn nobody_else_looks_in() {
    let (dir, _store) = store();
    let root = dir.path().join("store");
    for name in [
        "",
        "blobs",
        "layers",
        "layers/sha256",
        "leases",
        "spool",
        "staging",
    ] {
        let mode = std::fs::metadata(root.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    for name in ["lock", "records.redb"] {
        let mode = std::fs::metadata(root.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
