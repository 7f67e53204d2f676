//! Unused images go when their disk is full.

use std::time::Duration;

use serde_json::json;
use towline_cri::v1;
use towline_kubelet::ImageGc;

use crate::bench::Bench;
use crate::cri::Script;

const USED: &str = "127.0.0.1:5000/a/used:1";

fn image(id: &str, tag: &str, pinned: bool) -> v1::Image {
    v1::Image {
        id: id.to_owned(),
        repo_tags: vec![tag.to_owned()],
        size: 1,
        pinned,
        ..v1::Image::default()
    }
}

/// A node whose disk is too full from the first byte on, with one image in use, one pinned, and two that nobody uses.
async fn full(high_percent: u8) -> Bench {
    with(ImageGc {
        high_percent,
        low_percent: 0,
        ..ImageGc::default()
    })
    .await
}

async fn with(rules: ImageGc) -> Bench {
    let bench = Bench::start_with(|options| options.image_gc = rules).await;
    {
        let mut state = bench.cri.state.lock().unwrap();
        // More than its used bytes cannot be freed of any file system that is not empty.
        state.image_mount = Some("/".to_owned());
        state.images = vec![
            image("sha256:used", USED, false),
            image("sha256:one", "127.0.0.1:5000/a/one:1", false),
            image("sha256:two", "127.0.0.1:5000/a/two:1", false),
            image("sha256:pause", "127.0.0.1:5000/pause:1", true),
        ];
    }
    let present = Script {
        present: true,
        ..Script::default()
    };
    bench.cri.script(USED, present);
    bench.pod(
        "p",
        json!({ "containers": [{ "name": "app", "image": USED }] }),
    );
    bench
}

fn node_events(bench: &Bench) -> Vec<(String, String)> {
    let events = bench.distinct_events("node1").into_iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    events
        .map(|event| (text(&event[1]), text(&event[2])))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_the_images_that_nobody_uses_and_the_node_says_when_it_stays_full() {
    let bench = full(0).await;
    bench.after(90).await;
    let removed = bench.cri.state.lock().unwrap().removed.clone();
    assert_eq!(removed, ["sha256:one", "sha256:two"]);
    let events = node_events(&bench);
    let (_, message) = events
        .iter()
        .find(|(reason, _)| reason == "FreeDiskSpaceFailed")
        .unwrap_or_else(|| panic!("{events:?}"));
    assert!(
        message.starts_with("Insufficient free disk space on the node's image filesystem (")
            && message
                .contains("by deleting unused images (freed 2 bytes). Investigate disk usage"),
        "{message}"
    );
    // Kubernetes tells of the second failure in a row, not of the first.
    assert!(events.iter().all(|(reason, _)| reason != "ImageGCFailed"));
    bench.after(310).await;
    let events = node_events(&bench);
    assert!(
        events.iter().any(|(reason, message)| reason == "ImageGCFailed" && message.contains("freed 0 bytes")),
        "{events:?}"
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_the_runtime_keeps_does_not_keep_the_others() {
    let bench = full(0).await;
    bench.cri.state.lock().unwrap().stuck = vec!["sha256:one".to_owned()];
    bench.after(90).await;
    let removed = bench.cri.state.lock().unwrap().removed.clone();
    assert_eq!(removed, ["sha256:one", "sha256:two"]);
    bench.after(310).await;
    let events = node_events(&bench);
    assert!(
        events
            .iter()
            .any(|(reason, message)| reason == "ImageGCFailed"
                && message.contains("with errors in image deletion: ")
                && message.contains("sha256:one is stuck")),
        "{events:?}"
    );
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_per_cent_turns_it_off() {
    let bench = full(100).await;
    bench.after(1000).await;
    assert_eq!(
        bench.cri.state.lock().unwrap().removed,
        Vec::<String>::new()
    );
    assert_eq!(node_events(&bench), []);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_used_for_too_long_goes_although_there_is_room() {
    let bench = with(ImageGc {
        high_percent: 100,
        max_age: Some(Duration::from_secs(400)),
        ..ImageGc::default()
    })
    .await;
    bench.after(500).await;
    let removed = || bench.cri.state.lock().unwrap().removed.clone();
    assert_eq!(removed(), Vec::<String>::new());
    // It comes later than the others and is as old as they are now still later.
    let new = image("sha256:new", "127.0.0.1:5000/a/new:1", false);
    bench.cri.state.lock().unwrap().images.push(new);
    bench.after(250).await;
    assert_eq!(removed(), ["sha256:one", "sha256:two"]);
    bench.after(550).await;
    assert_eq!(removed(), ["sha256:one", "sha256:two", "sha256:new"]);
    assert_eq!(node_events(&bench), []);
    bench.stop().await;
}
