//! Blobs.

use std::io::Read as _;

use towline_cause::Cause;
use towline_oci::Digest;

use crate::support::{is_empty, store};

#[test]
fn a_blob_has_its_name_only_when_it_is_right() {
    let (dir, store) = store();
    let digest = Digest::of(b"content");
    for (bytes, size) in [(&b"Content"[..], 7), (b"conten", 7), (b"content", 8)] {
        let mut writer = store.blob_writer(&digest, size).unwrap();
        writer.write(bytes).unwrap();
        assert_eq!(writer.commit().unwrap_err().cause(), Cause::DigestMismatch);
        assert!(!store.has_blob(&digest));
    }
    let mut writer = store.blob_writer(&digest, 7).unwrap();
    writer.write(b"content").unwrap();
    assert!(writer.write(b"!").is_err(), "more than was declared");
    drop(writer);
    assert!(is_empty(&dir.path().join("store/staging")));

    store.put_blob(&digest, b"content").unwrap();
    store.put_blob(&digest, b"content").unwrap();
    assert_eq!(store.blob_size(&digest), Some(7));
    let mut text = String::new();
    store
        .open_blob(&digest)
        .unwrap()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "content");
    assert!(store.open_blob(&Digest::of(b"other")).unwrap().is_none());
    assert_eq!(store.blobs().unwrap(), [digest]);
}

#[test]
fn sha512_is_hashed_as_sha512() {
    let (_dir, store) = store();
    let mut verifier = towline_oci::Verifier::new(towline_oci::Algorithm::Sha512);
    verifier.update(b"content");
    let digest = verifier.finish();
    store.put_blob(&digest, b"content").unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap().unwrap(), b"content");
    assert!(store.read_blob(&digest, 3).is_err(), "bounded");
}

#[test]
fn verify_finds_a_bit_that_rotted() {
    let (dir, store) = store();
    let digest = Digest::of(b"content");
    store.put_blob(&digest, b"content").unwrap();
    assert_eq!(store.verify().unwrap(), []);
    let path = dir.path().join("store/blobs/sha256").join(digest.hex());
    std::fs::write(path, "Content").unwrap();
    let actual = Digest::of(b"Content");
    assert_eq!(
        store.verify().unwrap(),
        [towline_store::Damage::Blob { digest, actual }]
    );
}
