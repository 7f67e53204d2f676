//! The spool.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use towline_oci::Digest;
use towline_store::{Options, Store, StoreError};

use crate::support::{is_empty, store};

#[test]
fn bytes_stay_for_the_next_attempt_and_no_longer() {
    let (dir, store) = store();
    let digest = Digest::of(b"whole");
    let mut spool = store.spool(&digest, 5).unwrap();
    assert!(spool.is_empty());
    spool.append(b"who").unwrap();
    assert!(matches!(store.spool(&digest, 5), Err(StoreError::Busy(_))));
    drop(spool);
    let mut spool = store.spool(&digest, 5).unwrap();
    assert_eq!(spool.len(), 3);
    assert!(spool.append(b"le!").is_err(), "more than was declared");
    spool.append(b"le").unwrap();
    assert_eq!(spool.len(), 5);
    drop(spool);
    // Longer than what is declared now: not this content.
    assert!(store.spool(&digest, 4).unwrap().is_empty());
    let mut spool = store.spool(&digest, 5).unwrap();
    spool.append(b"x").unwrap();
    spool.restart().unwrap();
    assert!(spool.is_empty());
    spool.append(b"y").unwrap();
    spool.discard().unwrap();
    assert!(is_empty(&dir.path().join("store/spool")));
}

#[test]
fn old_and_superfluous_spools_go_and_those_in_use_stay() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        spool_age: Duration::from_secs(60),
        spool_bytes: 10,
        ..Options::default()
    };
    let store = Store::open_with(dir.path(), options).unwrap();
    let name = |text: &str| Digest::of(text.as_bytes());
    let fill = |text: &str| {
        let mut spool = store.spool(&name(text), 100).unwrap();
        spool.append(&[1; 6]).unwrap();
        spool
    };
    let used = fill("used");
    drop(fill("first"));
    std::thread::sleep(Duration::from_millis(20));
    drop(fill("second"));
    // 18 bytes: the oldest is in use, the next goes, and that is not enough.
    let collected = store.gc(Timestamp::now()).unwrap();
    assert_eq!(collected.bytes, 12);
    assert_eq!(store.usage().unwrap().spool, 6);
    drop(used);
    let later = Timestamp::now() + SignedDuration::from_secs(61);
    store.gc(later).unwrap();
    assert_eq!(store.usage().unwrap().spool, 0);
}
