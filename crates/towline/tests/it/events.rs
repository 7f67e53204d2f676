//! `towline pull -o json`: what happens, as it happens, one event a line.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;
use towline_lab::image::{Builder, Compression, Image, Layer};

use crate::support::program::towline;
use crate::support::registry::{OurRegistry, push};

/// A pull of these images, followed to its end: its events, and its exit code.
fn follow(args: &[&str]) -> (Vec<Value>, Option<i32>) {
    let data = tempfile::tempdir().unwrap();
    let mut child = towline()
        .args(["pull", "-o", "json", "--data-dir"])
        .arg(data.path())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events = lines.map(|line| {
        let line = line.unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(event["apiVersion"], "towline.dev/v1", "{line}");
        assert_eq!(event["kind"], "PullEvent", "{line}");
        event
    });
    let events = events.collect();
    (events, child.wait().unwrap().code())
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    let of_kind = events.iter().filter(|event| event["event"] == kind);
    of_kind.map(|event| &event[kind]).collect()
}

/// An image of two layers, together of a little more than 3 MiB that cannot be compressed.
fn two_layers() -> Image {
    let noise = |mut seed: u64, mib: usize| -> Vec<u8> {
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()
        };
        (0..mib << 17).flat_map(|_| random()).collect()
    };
    let layer = |name: &str, bytes: &[u8]| {
        Layer::new()
            .file(name, bytes)
            .compression(Compression::Gzip)
    };
    Builder::new()
        .layer(layer("one", &noise(1, 2)))
        .layer(layer("two", &noise(2, 1)))
        .build()
}

#[test]
fn a_pull_is_told_from_resolving_to_its_end() {
    let registry = OurRegistry::start();
    let image = two_layers();
    push(&image, registry.address, "lib/app", "1.0", None);
    let name = registry.image("lib/app:1.0");
    // Slow enough that it is looked at on the way.
    let (events, code) = follow(&["--limit-rate", "2M", &name]);
    assert_eq!(code, Some(0), "{events:?}");
    assert!(events.iter().all(|event| event["image"] == name.as_str()));
    let times: Vec<jiff::Timestamp> = events
        .iter()
        .map(|event| event["time"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");

    let phases = ["resolving", "layers", "committing", "done"];
    let place = |list: &[&str], value: &Value| {
        let at = list.iter().position(|one| value == one);
        at.unwrap_or_else(|| panic!("{value} is none of {list:?}"))
    };
    let told = of(&events, "phase");
    assert!(
        told.is_sorted_by_key(|phase| place(&phases, phase)),
        "{told:?}"
    );
    assert!(told.contains(&&Value::from("layers")), "{told:?}");
    assert_eq!(told.last(), Some(&&Value::from("done")));

    let progress = ["waiting", "downloading", "unpacking", "done"];
    let layers = of(&events, "layer");
    for blob in image.layers() {
        let size = blob.bytes.len() as u64;
        let steps: Vec<&Value> = layers
            .iter()
            .copied()
            .filter(|layer| layer["digest"] == blob.digest.as_str())
            .collect();
        assert!(
            steps
                .iter()
                .all(|step| step["total"] == size && step["present"] == false)
        );
        assert!(
            steps.is_sorted_by_key(|step| place(&progress, &step["phase"])),
            "{steps:?}"
        );
        assert!(
            steps.is_sorted_by_key(|step| step["bytes"].as_u64()),
            "{steps:?}"
        );
        let last = steps.last().unwrap();
        assert_eq!(
            (&last["phase"], &last["bytes"]),
            (&"done".into(), &size.into())
        );
    }
    let total: u64 = image.layers().map(|blob| blob.bytes.len() as u64).sum();
    let bytes = of(&events, "progress");
    assert!(bytes.iter().all(|step| step["total"] == total), "{bytes:?}");
    assert!(
        bytes.is_sorted_by_key(|step| step["bytes"].as_u64()),
        "{bytes:?}"
    );
    let partly = |step: &&Value| (1..total).contains(&step["bytes"].as_u64().unwrap());
    assert!(bytes.iter().any(partly), "it is told on the way: {bytes:?}");

    let ended = of(&events, "ended");
    assert_eq!(ended.len(), 1);
    assert_eq!(events.last().unwrap()["event"], "ended");
    assert!(ended[0]["id"].as_str().unwrap().starts_with("sha256:"));
    assert!(ended[0]["size"].as_u64().unwrap() >= total);
    assert_eq!(ended[0].get("cause"), None);
}

#[test]
fn each_image_has_its_own_end_and_a_failure_its_cause() {
    let registry = OurRegistry::start();
    push(&two_layers(), registry.address, "lib/app", "1.0", None);
    let (good, bad) = (registry.image("lib/app:1.0"), registry.image("lib/app:2.0"));
    let (events, code) = follow(&[&good, &bad]);
    assert_eq!(code, Some(1), "{events:?}");
    let ends = of(&events, "ended");
    let end = |image: &str| {
        let found = ends.iter().find(|end| end["image"] == image);
        found.unwrap_or_else(|| panic!("{image}: {ends:?}"))
    };
    assert_eq!(ends.len(), 2);
    assert_eq!(end(&good).get("cause"), None);
    assert_eq!(end(&bad)["cause"], "TagNotFound");
    assert_eq!(end(&bad)["step"], "resolve");
    let done = |event: &&Value| event["event"] == "phase" && event["phase"] == "done";
    let done: Vec<&Value> = events
        .iter()
        .filter(done)
        .map(|event| &event["image"])
        .collect();
    assert_eq!(done, [good.as_str()]);
}
