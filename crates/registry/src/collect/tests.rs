//! What goes, what stays, and what happens when both are decided at once.

use serde_json::json;

use super::*;
use crate::names::Tag;
use crate::storage::{FileBlobs, FileMetadata, ManifestRecord};

struct Place {
    _folder: tempfile::TempDir,
    blobs: FileBlobs,
    metadata: FileMetadata,
    gate: Gate,
}

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            blobs: FileBlobs::new(folder.path().to_owned()),
            metadata: FileMetadata::new(folder.path().to_owned(), 1000),
            gate: Gate::default(),
            _folder: folder,
        }
    }

    fn blob(&self, name: &Repository, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.put(&digest, bytes).unwrap();
        self.metadata.link_blob(name, &digest).unwrap();
        digest
    }

    fn image(&self, name: &Repository, layer: &Digest) -> Digest {
        let config = self.blob(name, b"{}");
        let part = |digest: &Digest, size: usize| json!({"mediaType": "application/octet-stream", "digest": digest.to_string(), "size": size});
        let manifest = json!({"schemaVersion": 2, "mediaType": KIND, "config": part(&config, 2), "layers": [part(layer, 5)]});
        let bytes = manifest.to_string();
        let digest = Digest::of(bytes.as_bytes());
        self.blobs.put(&digest, bytes.as_bytes()).unwrap();
        let record = ManifestRecord {
            media_type: KIND.to_owned(),
            subject: None,
        };
        self.metadata.put_manifest(name, &digest, &record).unwrap();
        digest
    }

    fn run(&self, dry_run: bool, later: u64) -> Collected {
        let collector = Collector {
            blobs: &self.blobs,
            metadata: &self.metadata,
            gate: &self.gate,
        };
        let how = Collection {
            dry_run,
            grace: Duration::from_secs(600),
        };
        collector
            .run(how, SystemTime::now() + Duration::from_secs(later))
            .unwrap()
    }

    fn has(&self, digest: &Digest) -> bool {
        self.blobs.size(digest).unwrap().is_some()
    }
}

fn name(text: &str) -> Repository {
    Repository::parse(text).unwrap()
}

#[test]
fn what_no_manifest_names_goes_when_it_is_old() {
    let place = Place::new();
    let (a, b) = (name("team/a"), name("team/b"));
    let layer = place.blob(&a, b"layer");
    let manifest = place.image(&a, &layer);
    place
        .metadata
        .set_tag(&a, &Tag::parse("v1").unwrap(), &manifest)
        .unwrap();
    let unused = place.blob(&a, b"pushed and never named");
    let shared = place.blob(&b, b"layer");
    assert_eq!(shared, layer);
    assert_eq!(
        (place.run(false, 0).blobs, place.has(&unused)),
        (0, true),
        "young things stay"
    );

    let dry = place.run(true, 1000);
    assert_eq!((dry.links, dry.blobs, dry.bytes), (2, 1, 22));
    assert!(dry.dry_run && place.has(&unused));
    let done = place.run(false, 1000);
    assert_eq!(
        Collected {
            dry_run: true,
            ..done
        },
        dry,
        "a dry run says what happens"
    );
    assert!(!place.has(&unused) && place.has(&layer) && place.has(&manifest));
    assert!(
        !place.metadata.has_blob(&b, &layer).unwrap(),
        "b names it nowhere"
    );
    assert_eq!(place.run(false, 1000).blobs, 0);

    // Deleting the image lets all of it go.
    place.metadata.delete_manifest(&a, &manifest).unwrap();
    assert_eq!(place.run(false, 1000).blobs, 3);
    assert!(!place.has(&layer) && !place.has(&manifest));
}

#[test]
fn a_repository_with_a_manifest_that_cannot_be_read_is_left_alone() {
    let place = Place::new();
    let a = name("a");
    let layer = place.blob(&a, b"layer");
    let manifest = place.image(&a, &layer);
    assert!(place.blobs.remove(&manifest).unwrap());
    let done = place.run(false, 1000);
    assert_eq!((done.blobs, done.left_alone), (0, vec!["a".to_owned()]));
    assert!(place.has(&layer));
}

#[test]
fn what_is_relied_on_while_the_collector_looks_stays() {
    let place = Place::new();
    let a = name("a");
    let layer = place.blob(&a, b"layer");
    let (other, lone) = (place.blob(&a, b"other"), Digest::of(b"lone"));
    place.blobs.put(&lone, b"lone").unwrap();
    place.gate.collecting(|| {
        // A manifest that names the layer comes between the look and the taking away.
        place.gate.adding().note(&a, [&layer, &lone]);
        let collector = Collector {
            blobs: &place.blobs,
            metadata: &place.metadata,
            gate: &place.gate,
        };
        let how = Collection {
            dry_run: false,
            grace: Duration::ZERO,
        };
        let later = SystemTime::now() + Duration::from_secs(1);
        let done = collector.collect(how, later).unwrap();
        assert_eq!((done.links, done.blobs), (1, 1));
    });
    assert!(place.has(&layer) && place.has(&lone) && !place.has(&other));
    assert!(place.metadata.has_blob(&a, &layer).unwrap());
}

#[test]
fn entries_of_referrers_without_their_manifest_go() {
    let place = Place::new();
    let a = name("a");
    let (subject, referrer) = (Digest::of(b"subject"), Digest::of(b"referrer"));
    place
        .metadata
        .add_referrer(&a, &subject, &referrer, &json!({}))
        .unwrap();
    assert!(
        place
            .metadata
            .referrers(&a, &subject, 10)
            .unwrap()
            .is_empty(),
        "and are not listed"
    );
    place.blob(&a, b"so that the repository exists");
    assert_eq!(place.run(false, 0).referrers, 0);
    assert_eq!(place.run(false, 1000).referrers, 1);
    assert!(!place.metadata.is_referrer(&a, &subject, &referrer).unwrap());
}
