//! `--keep-blobs` as a person uses it: what was kept mends an image while its registry is away, is counted, and goes when it is told to.

use std::path::PathBuf;

use serde_json::Value;

use crate::pulling::{Home, Restarted, a_file, large};
use crate::support::program::text;
use crate::support::registry::{OurRegistry, hello, push};

/// What `df` says of kept layers: how many.
fn kept(home: &Home) -> u64 {
    let rows: Value = serde_json::from_str(&home.well(&["df", "-o", "json"])).unwrap();
    let rows = rows.as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["what"] == "kept compressed layers");
    row.unwrap()["count"].as_u64().unwrap()
}

/// The largest blob of the store: a compressed layer, where there is one.
fn largest(home: &Home) -> PathBuf {
    let folder = home.data().join("runtime/images/blobs/sha256");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    let largest = files.max_by_key(|entry| entry.metadata().unwrap().len());
    largest.unwrap().path()
}

#[test]
fn what_was_kept_mends_an_image_while_its_registry_is_away() {
    let mut registry = Restarted::new();
    push(&large(2, 5), registry.address, "app", "1", None);
    let image = format!("{}/app:1", registry.address);
    let home = Home::new();
    home.well(&["pull", "--keep-blobs", &image]);
    assert_eq!(kept(&home), 1);
    let list = home.well(&["images"]);
    assert!(list.contains("KEPT COMPRESSED"), "{list}");
    let inspected: Value =
        serde_json::from_str(&home.well(&["inspect", "-o", "json", &image])).unwrap();
    assert_eq!(inspected[0]["blobs"].as_array().unwrap().len(), 1);
    registry.kill();

    let file = a_file(&home.data().join("runtime/images/layers")).unwrap();
    std::fs::write(&file, "rotten").unwrap();
    let found = home.run(&["verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    let mended = home.well(&["verify", "--repair"]);
    assert!(
        mended.contains("unpacked again from its kept layers"),
        "{mended}"
    );
    assert!(
        mended.contains("0 things are damaged after the repair"),
        "{mended}"
    );
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 << 20);
    assert_eq!(kept(&home), 1);

    // What is kept is compared too, and where nobody has it again it stays, damaged as it is.
    let blob = largest(&home);
    std::fs::write(&blob, "rotten").unwrap();
    let found = home.run(&["verify", "--repair"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    assert!(
        text(&found).contains("could not be fetched again"),
        "{}",
        text(&found)
    );
    assert!(blob.exists());

    // A prune leaves what is kept; told so, it takes that alone.
    assert!(home.well(&["prune"]).contains("0 other blobs"));
    let pruned = home.well(&["prune", "--blobs"]);
    assert!(pruned.contains("1 other blobs"), "{pruned}");
    assert_eq!(kept(&home), 0);
    assert!(!blob.exists());
    let whole = home.well(&["verify"]);
    assert!(whole.contains("1 images, 0 things are damaged"), "{whole}");
    assert!(!home.well(&["images"]).contains("KEPT"));
}

#[test]
fn who_begins_to_keep_later_is_told_what_that_downloads() {
    let registry = OurRegistry::start();
    push(&large(1, 6), registry.address, "app", "1", None);
    push(&hello("other"), registry.address, "other", "1", None);
    let (image, other) = (registry.image("app:1"), registry.image("other:1"));
    let home = Home::new();
    home.well(&["pull", &image, &other]);
    let plan = |more: &[&str]| {
        let args = [&["pull", "--dry-run", "-o", "json", &image], more].concat();
        let plan: Value = serde_json::from_str(&home.well(&args)).unwrap();
        plan[0]["toFetch"].as_u64().unwrap()
    };
    assert_eq!(plan(&[]), 0);
    assert!(plan(&["--keep-blobs"]) > 1 << 20);
    home.well(&["pull", "--keep-blobs", &image]);
    assert_eq!((plan(&["--keep-blobs"]), kept(&home)), (0, 1));
    home.well(&["rm", &image]);
    assert_eq!(kept(&home), 0);
    // The layer is gone; were its bytes still here, they would not be asked for again.
    assert!(plan(&[]) > 1 << 20);
}
