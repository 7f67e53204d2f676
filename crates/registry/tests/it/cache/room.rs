//! A cache that does not only grow: what was used longest ago makes room, and what is served stays.

use std::time::Duration;

use towline_lab::image::{Builder, Image, Layer};
use towline_registry::{Options, Quota, Upstream};

use super::{Line, layer};
use crate::client::{Registry, SmallDisk, send};

/// Bytes of each image's layer; the rest of an image is small beside it.
const LAYER: usize = 1 << 20;

fn image(seed: u8) -> Image {
    let mut state = u32::from(seed) + 100;
    let bytes = (0..LAYER).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let bytes: Vec<u8> = bytes.collect();
    Builder::new()
        .layer(Layer::new().file("data", bytes))
        .build()
}

/// A cache with an origin that holds five images, `v0` to `v4`.
async fn five(change: impl FnOnce(&mut Options)) -> (Line, Vec<Image>) {
    let line = Line::new(change).await;
    let images: Vec<Image> = (0..5).map(image).collect();
    for (at, image) in images.iter().enumerate() {
        line.push(image, &format!("v{at}")).await;
    }
    (line, images)
}

impl Line {
    /// Pulls an image's manifest and layer; what the layer's answer came from.
    async fn pull(&self, images: &[Image], at: usize) -> String {
        assert_eq!(self.get(&format!("manifests/v{at}")).await.status, 200);
        let (digest, bytes) = layer(&images[at]);
        let blob = self.get(&format!("blobs/{digest}")).await;
        assert_eq!(blob.body, bytes, "image {at}");
        blob.header("x-towline-cache").to_owned()
    }

    /// Bytes of blobs on the cache's disk.
    fn kept(&self) -> u64 {
        fn sum(folder: &std::path::Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.metadata() {
                    Ok(found) if found.is_dir() => sum(&entry.path()),
                    Ok(found) => found.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        sum(&self.cache.folder.path().join("blobs"))
    }

    fn number(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .trim()
            .parse()
            .unwrap()
    }

    async fn metric(&self, name: &str) -> u64 {
        let metrics = self.cache.get("/metrics").await.body;
        Self::number(&String::from_utf8_lossy(&metrics), name)
    }
}

fn check(line: &Line) {
    let found = towline_registry::check(line.cache.folder.path(), false).unwrap();
    assert_eq!(found.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_longest_ago_makes_room() {
    let size = 3 * LAYER as u64 + (LAYER as u64) / 2;
    let (line, images) = five(|options| options.cache.size = Some(size)).await;
    for at in 0..3 {
        assert_eq!(line.pull(&images, at).await, "miss");
    }
    // The first is used again, so that the second goes for the fourth.
    assert_eq!(line.pull(&images, 0).await, "hit");
    assert_eq!(line.pull(&images, 3).await, "miss");
    assert!(line.kept() <= size, "{} of {size}", line.kept());
    assert_eq!(line.pull(&images, 0).await, "hit");
    assert_eq!(line.pull(&images, 3).await, "hit");
    assert_eq!(line.pull(&images, 1).await, "miss");
    for round in 0..3 {
        for at in 0..5 {
            line.pull(&images, at).await;
            assert!(
                line.kept() <= size,
                "round {round}: {} of {size}",
                line.kept()
            );
        }
    }
    assert!(line.metric("towline_registry_cache_evicted_total ").await > 5);
    assert_eq!(
        line.metric("towline_registry_cache_size_bytes ").await,
        size
    );
    assert!(line.metric("towline_registry_cache_bytes ").await <= size);
    check(&line);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_stays_and_ends_whole() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (line, images) = five(|options| options.cache.size = Some(14 * LAYER as u64)).await;
    // More than fits into the buffers between it and a client that does not read.
    let bytes: Vec<u8> = images[0].layers().next().unwrap().bytes.repeat(12);
    let digest = line.origin.blob("team/app", &bytes).await;
    assert_eq!(line.get(&format!("blobs/{digest}")).await.body, bytes);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(line.cache.address()).await.unwrap();
    let text = format!(
        "GET /v2/up/team/app/blobs/{digest} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
    );
    slow.write_all(text.as_bytes()).await.unwrap();
    let mut begin = [0; 15];
    slow.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    for at in [0, 1, 2, 3, 4, 0, 1] {
        line.pull(&images, at).await;
    }
    // It is the one that was used longest ago, by far.
    let hex = digest.strip_prefix("sha256:").unwrap();
    let file = line
        .cache
        .folder
        .path()
        .join(format!("blobs/sha256/{}/{hex}", &hex[..2]));
    assert!(file.is_file(), "what is served is kept");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    let head = rest
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    assert_eq!(rest[head + 4..], bytes);
    // Now it may go.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut at = 3;
    while file.is_file() {
        assert!(tokio::time::Instant::now() < deadline, "it goes at last");
        line.pull(&images, at % 5).await;
        at += 1;
    }
    check(&line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_larger_than_the_cache_is_passed_on_and_nothing_goes_for_it() {
    let (line, images) = five(|options| options.cache.size = Some(3 * LAYER as u64)).await;
    line.pull(&images, 0).await;
    let large: Vec<u8> = image(9).layers().next().unwrap().bytes.repeat(4);
    let digest = line.origin.blob("team/app", &large).await;
    let path = format!("blobs/{digest}");
    for _ in 0..2 {
        let got = line.get(&path).await;
        assert_eq!(
            (got.status.as_u16(), got.header("x-towline-cache")),
            (200, "miss")
        );
        assert_eq!(got.body, large);
    }
    assert_eq!(line.pull(&images, 0).await, "hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_met_by_what_was_used_longest_ago_and_never_by_what_was_pushed() {
    let quota = |total: u64, each: u64| Quota {
        total: Some(total),
        repositories: vec![("up/*".to_owned(), each)],
    };
    let layer = LAYER as u64;
    let (line, images) =
        five(|options| options.quota = quota(6 * layer, 2 * layer + layer / 2)).await;
    for at in [0, 1, 2, 3] {
        assert_eq!(line.pull(&images, at).await, "miss");
    }
    assert!(line.kept() < 3 * layer, "{}", line.kept());
    assert_eq!(line.pull(&images, 3).await, "hit");
    // What is pushed here takes the room of all; the cache lives with what is left, down to nothing.
    let address = line.cache.address();
    let push = async |fill: u8, bytes: u64| {
        let bytes = vec![fill; usize::try_from(bytes).unwrap()];
        let digest = towline_lab::image::sha256(&bytes);
        let path = format!("/v2/own/app/blobs/uploads/?digest={digest}");
        send(address, "POST", &path, &[], bytes)
            .await
            .status
            .as_u16()
    };
    assert_eq!(push(1, 3 * layer).await, 201);
    assert_eq!(line.pull(&images, 4).await, "miss");
    assert_eq!(line.pull(&images, 0).await, "miss");
    assert_eq!(
        push(2, 5 * layer).await,
        507,
        "pushes do not push the cache out"
    );
    // Nothing of the cache is left that could go: the pull is told the truth, and that it is no fault of its.
    let full = Registry::with(|options| {
        let origin = line.origin.address();
        options.cache.upstreams = vec![Upstream::parse(&format!("up=http://{origin}")).unwrap()];
        options.quota = quota(layer / 2, layer);
    })
    .await;
    let (digest, _) = super::layer(&images[0]);
    let refused = full.get(&format!("/v2/up/team/app/blobs/{digest}")).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (507, "DENIED"));
    check(&line);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_repositories_hold_goes_only_from_the_cache() {
    let size = 2 * LAYER as u64 + (LAYER as u64) / 2;
    let (line, images) = five(|options| options.cache.size = Some(size)).await;
    line.pull(&images, 0).await;
    let (digest, bytes) = layer(&images[0]);
    let mount = format!("/v2/own/app/blobs/uploads/?mount={digest}&from=up/team/app");
    assert_eq!(line.cache.send("POST", &mount, &[], "").await.status, 201);
    for at in [1, 2, 3, 4] {
        line.pull(&images, at).await;
    }
    let own = line.cache.get(&format!("/v2/own/app/blobs/{digest}")).await;
    assert_eq!(own.body, bytes);
    check(&line);
}

/// Twenty pulls of five images at once, each under two names, where two and a half find room; all of them end well, and the room is not
/// exceeded.
async fn all_at_once(what: &str, change: impl FnOnce(&mut Options)) {
    let line = Line::new(change).await;
    let images: Vec<Image> = (0..5).map(image).collect();
    // The sixth is the first one's image again, elsewhere: what is held for one name is only linked for the other.
    let repository = |at: usize| format!("team/app{}", at % 2);
    for at in 0..10 {
        let (to, name) = (line.origin.address(), repository(at));
        images[at % 5].push(to, &name, "v1", None).await.unwrap();
    }
    let digests: Vec<_> = images.iter().map(layer).collect();
    let pull = async |at: usize| {
        let (digest, bytes) = &digests[at % 5];
        for path in [
            format!("manifests/{}", images[at % 5].digest()),
            format!("blobs/{digest}"),
        ] {
            let path = format!("/v2/up/{}/{path}", repository(at));
            let got = line.cache.get(&path).await;
            assert_eq!(got.status, 200, "{what}: {path}: {:?}", got.body);
            if path.contains("/blobs/") {
                assert!(got.body == *bytes, "{what}: image {at} is whole");
            }
        }
    };
    for round in 0..3 {
        futures::future::join_all((0..20).map(|at| pull(at % 10))).await;
        let most = 2 * LAYER as u64 + LAYER as u64 / 2;
        assert!(line.kept() <= most, "{what}, {round}: {}", line.kept());
    }
    check(&line);
    // What was only passed on leaves nothing behind.
    let staged = line.cache.folder.path().join("staging");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&staged).unwrap().count() > 0 {
        let now = tokio::time::Instant::now();
        assert!(now < deadline, "{what}: something stays in staging");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_at_once_keep_within_the_room_and_all_end_well() {
    let most = 2 * LAYER as u64 + LAYER as u64 / 2;
    all_at_once("size", |options| options.cache.size = Some(most)).await;
    all_at_once("quota of all", |options| options.quota.total = Some(most)).await;
    all_at_once("quota of each", |options| {
        options.quota.repositories = vec![("up/*".to_owned(), most / 2)];
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_made_room_and_is_gone_at_the_upstream_is_gone_until_it_is_there_again() {
    let size = LAYER as u64 + LAYER as u64 / 2;
    let (line, images) = five(|options| options.cache.size = Some(size)).await;
    line.pull(&images, 0).await;
    line.pull(&images, 1).await;
    let (digest, bytes) = layer(&images[0]);
    let origin = format!("/v2/team/app/blobs/{digest}");
    let deleted = line.origin.send("DELETE", &origin, &[], "").await;
    assert_eq!(deleted.status, 202);
    let path = format!("/v2/up/team/app/blobs/{digest}");
    for method in ["GET", "HEAD", "GET"] {
        let gone = line.cache.send(method, &path, &[], "").await;
        assert_eq!(gone.status, 404, "{method}");
        if method == "GET" {
            let error = &gone.json()["errors"][0];
            let told = (&error["code"], &error["detail"]["cause"]);
            assert_eq!(told, (&"BLOB_UNKNOWN".into(), &"BlobMissing".into()));
        }
    }
    check(&line);
    line.push(&images[0], "v0").await;
    let again = line.cache.get(&path).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &bytes));
    assert_eq!(again.header("x-towline-cache"), "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_makes_room_by_itself() {
    let Some(disk) = SmallDisk::new(6) else {
        return;
    };
    let root = disk.0.path().to_owned();
    let (line, images) = five(|options| {
        options.root = root.clone();
        options.limits.reserve = 2 << 20;
    })
    .await;
    // Three and a half of five find room, and none of the pulls notices.
    for _ in 0..3 {
        for at in 0..5 {
            line.pull(&images, at).await;
        }
    }
    assert!(line.metric("towline_registry_cache_evicted_total ").await > 5);
    let found = towline_registry::check(&root, false).unwrap();
    assert_eq!(found.problems, []);
    // What nothing can make room for is told as what it is.
    let large: Vec<u8> = image(9).layers().next().unwrap().bytes.repeat(5);
    let digest = line.origin.blob("team/app", &large).await;
    let refused = line.get(&format!("blobs/{digest}")).await;
    assert_eq!(refused.status, 507);
    let words = refused.json()["errors"][0]["message"].to_string();
    assert!(words.contains("disk is full"), "{words}");
    line.cache.handle.shutdown(Duration::from_secs(20)).await;
}
