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
    spool.write(0, b"who").unwrap();
    assert!(matches!(store.spool(&digest, 5), Err(StoreError::Busy(_))));
    drop(spool);
    let mut spool = store.spool(&digest, 5).unwrap();
    assert_eq!(spool.len(), 3);
    assert!(spool.write(3, b"le!").is_err(), "more than was declared");
    spool.write(3, b"le").unwrap();
    assert_eq!(spool.len(), 5);
    drop(spool);
    // Longer than what is declared now: not this content.
    assert!(store.spool(&digest, 4).unwrap().is_empty());
    let mut spool = store.spool(&digest, 5).unwrap();
    spool.write(0, b"x").unwrap();
    spool.restart().unwrap();
    assert!(spool.is_empty());
    spool.write(0, b"y").unwrap();
    spool.discard().unwrap();
    assert!(is_empty(&dir.path().join("store/spool")));
}

/// Everything from `at` on that can be read.
fn read(spool: &mut towline_store::Spool, mut at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4];
    loop {
        let read = spool.read_at(at, &mut buffer).unwrap();
        if read == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&buffer[..read]);
        at += read as u64;
    }
}

#[test]
fn parts_come_in_any_order_and_stay_over_a_restart() {
    let (dir, store) = store();
    let digest = Digest::of(b"parts");
    let mut spool = store.spool(&digest, 20).unwrap();
    spool.write(10, b"klm").unwrap();
    spool.write(0, b"abcd").unwrap();
    spool.write(15, b"pqrst").unwrap();
    spool.write(13, b"n").unwrap();
    assert_eq!(spool.len(), 13);
    assert_eq!(spool.missing(), [4..10, 14..15]);
    assert!(spool.write(12, b"x").is_err(), "it is here");
    assert!(spool.write(4, b"efghijk").is_err(), "its end is here");
    assert!(spool.write(14, b"op").is_err(), "its end is here");
    drop(spool);
    assert_eq!(store.usage().unwrap().spool_count, 1);
    assert_eq!(store.spooled(&digest), 13);
    let mut spool = store.spool(&digest, 20).unwrap();
    assert_eq!(spool.missing(), [4..10, 14..15]);
    assert_eq!(read(&mut spool, 0), b"abcd");
    assert_eq!(read(&mut spool, 4), b"");
    assert_eq!(read(&mut spool, 12), b"mn");
    spool.write(4, b"efghij").unwrap();
    spool.write(14, b"o").unwrap();
    assert_eq!(spool.missing(), []);
    assert_eq!(read(&mut spool, 0), b"abcdefghijklmnopqrst");
    assert!(spool.write(20, b"u").is_err(), "more than was declared");
    drop(spool);
    // Of a download of another size only what fits is taken.
    let spool = store.spool(&digest, 14).unwrap();
    assert_eq!(spool.missing().first(), Some(&(10..14)));
    spool.discard().unwrap();
    assert!(is_empty(&dir.path().join("store/spool")));
}

#[test]
fn a_file_that_overlaps_another_is_not_believed() {
    let (dir, store) = store();
    let digest = Digest::of(b"parts");
    let mut spool = store.spool(&digest, 20).unwrap();
    spool.write(0, b"abcd").unwrap();
    drop(spool);
    let name = digest.to_string().replace(':', "-");
    let dir = dir.path().join("store/spool");
    for (start, bytes) in [("2", "xx"), ("18", "toolong"), ("10", "klm")] {
        std::fs::write(dir.join(format!("{name}.{start}")), bytes).unwrap();
    }
    let spool = store.spool(&digest, 20).unwrap();
    assert_eq!(spool.missing(), [4..10, 13..20]);
    spool.discard().unwrap();
    assert!(is_empty(&dir));
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
        spool.write(0, &[1; 6]).unwrap();
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

#[test]
fn what_a_pull_waits_for_stays_whoever_collects() {
    let (_dir, store) = store();
    let name = |text: &str| Digest::of(text.as_bytes());
    for text in ["open", "awaited", "left", "left later"] {
        let mut spool = store.spool(&name(text), 100).unwrap();
        spool.write(0, &[1; 6]).unwrap();
        spool.write(50, &[1; 4]).unwrap();
        drop(spool);
        std::thread::sleep(Duration::from_millis(20));
    }
    let open = store.spool(&name("open"), 100).unwrap();
    // A layer whose turn has not come.
    let lease = store.lease();
    lease.hold(&name("awaited"));
    let now = Timestamp::now();
    let hour = Duration::from_secs(3600);
    assert_eq!(store.free_spools(now, hour, u64::MAX).unwrap(), 0);
    // No more than is asked for, the oldest first, file by file.
    assert_eq!(store.free_spools(now, Duration::ZERO, 5).unwrap(), 6);
    assert_eq!(store.spooled(&name("left later")), 10);
    let collected = store.prune(now).unwrap();
    assert_eq!((collected.downloads, collected.bytes), (2, 14));
    assert_eq!(store.spooled(&name("open")), 10);
    assert_eq!(store.spooled(&name("awaited")), 10);
    drop((open, lease));
    assert_eq!(store.prune(now).unwrap().downloads, 2);
    assert_eq!(store.usage().unwrap().spool, 0);
}

#[test]
fn what_came_in_parts_is_kept_as_one_blob_and_read_from_there() {
    let (dir, store) = store();
    let bytes = b"abcdefghijklmnopqrst";
    let digest = Digest::of(bytes);
    let mut spool = store.spool(&digest, 20).unwrap();
    spool.write(10, b"klmno").unwrap();
    spool.write(0, b"abcd").unwrap();
    spool.write(15, b"pqrst").unwrap();
    spool.write(4, b"efghij").unwrap();
    spool.keep().unwrap();
    assert!(is_empty(&dir.path().join("store/spool")));
    assert_eq!(store.read_blob(&digest, 20).unwrap().unwrap(), bytes);

    // The next download has it all, and what becomes of that leaves the blob.
    let mut spool = store.spool(&digest, 20).unwrap();
    assert_eq!((spool.len(), spool.missing()), (20, Vec::new()));
    assert_eq!(read(&mut spool, 0), bytes);
    assert_eq!(spool.file_at(7), Some(0));
    assert_eq!(spool.open_file(0).unwrap().metadata().unwrap().len(), 20);
    spool.discard().unwrap();
    drop(store.spool(&digest, 20).unwrap());
    store.spool(&digest, 20).unwrap().keep().unwrap();
    assert!(store.has_blob(&digest));
    // Of another size it is no such download's.
    assert!(store.spool(&digest, 19).unwrap().is_empty());

    // Bytes that turn out to be wrong are no blob, and the download begins anew.
    let mut spool = store.spool(&digest, 20).unwrap();
    spool.restart().unwrap();
    assert!(!store.has_blob(&digest));
    spool.write(0, b"abc").unwrap();
    drop(spool);
    assert_eq!(store.spooled(&digest), 3);
    let spool = store.spool(&digest, 20).unwrap();
    assert!(matches!(spool.keep(), Err(StoreError::Size { .. })));
    assert!(!store.has_blob(&digest));
}

/// A kill while the parts are put together leaves a download that goes on: what is there twice counts once.
#[test]
fn a_kill_while_parts_are_put_together_costs_little() {
    let (dir, store) = store();
    let digest = Digest::of(b"parts");
    let mut spool = store.spool(&digest, 12).unwrap();
    spool.write(8, b"ijkl").unwrap();
    spool.write(0, b"abcd").unwrap();
    spool.write(4, b"efgh").unwrap();
    drop(spool);
    // Two bytes of the second file were appended to the first.
    let name = format!("sha256-{}", digest.hex());
    let whole = dir.path().join("store/spool").join(name);
    std::fs::write(&whole, b"abcdefghij").unwrap();
    let mut spool = store.spool(&digest, 12).unwrap();
    assert_eq!(spool.missing(), std::slice::from_ref(&(10..12)));
    assert_eq!(read(&mut spool, 0), b"abcdefghij");
}
