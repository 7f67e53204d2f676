//! The pull-through cache in front of a registry whose network misbehaves on command.

use std::time::Duration;

use bytes::Bytes;
use towline_lab::faults::{Fault, Proxy, Rule};
use towline_lab::image::{self, Builder, Image, Layer};
use towline_registry::{Options, Upstream};

use crate::client::{Answer, Registry};

mod absent;
mod faults;
mod names;
mod peers;
mod room;

/// A registry, a network before it, and a cache that knows it as `up`.
struct Line {
    origin: Registry,
    network: Proxy,
    cache: Registry,
}

impl Line {
    async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let origin = Registry::open().await;
        let network = Proxy::before(origin.address(), Vec::new()).await.unwrap();
        let upstream = Upstream::parse(&format!("up=http://{}", network.local_addr())).unwrap();
        let cache = Registry::with(|options| {
            options.cache.upstreams = vec![upstream];
            options.cache.tag_ttl = Duration::ZERO;
            options.cache.absent_ttl = Duration::ZERO;
            options.cache.failure_ttl = Duration::ZERO;
            change(options);
        })
        .await;
        Self {
            origin,
            network,
            cache,
        }
    }

    /// Pushes an image to the origin as `team/app:TAG`.
    async fn push(&self, image: &Image, tag: &str) {
        image
            .push(self.origin.address(), "team/app", tag, None)
            .await
            .unwrap();
    }

    async fn get(&self, path: &str) -> Answer {
        self.cache.get(&format!("/v2/up/team/app/{path}")).await
    }

    /// Requests that the origin's network saw, by method and a part of the path.
    fn seen(&self, method: &str, part: &str) -> usize {
        let seen = self.network.seen();
        seen.iter()
            .filter(|seen| seen.method == method && seen.path.contains(part))
            .count()
    }
}

fn image(seed: u8) -> Image {
    // Not compressible to nothing: the blob must be larger than one piece of the network.
    let mut bytes = Vec::with_capacity(3 << 20);
    let mut state = u32::from(seed) + 1;
    for _ in 0..(3 << 20) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push(u8::try_from(state >> 24).unwrap());
    }
    Builder::new()
        .layer(Layer::new().file("data", bytes))
        .build()
}

fn layer(image: &Image) -> (String, Bytes) {
    let blob = image.layers().next().unwrap();
    (blob.digest.clone(), blob.bytes.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_cost_one_download() {
    let line = Line::new(|options| options.cache.tag_ttl = Duration::from_secs(600)).await;
    let image = image(1);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    // The blob comes slowly, so that all clients meet.
    line.network.set_rules(vec![
        Rule::on("*/blobs/*", Fault::Delay { millis: 300 }).method("GET"),
    ]);
    let pull = async || {
        let manifest = line.get("manifests/v1").await;
        assert_eq!(manifest.status, 200, "{manifest:?}");
        assert_eq!(manifest.body, image.manifest.bytes);
        let blob = line.get(&format!("blobs/{digest}")).await;
        assert_eq!(blob.status, 200);
        assert_eq!(blob.body, bytes);
    };
    futures::future::join_all((0..50).map(|_| pull())).await;
    assert_eq!(line.seen("GET", "/manifests/"), 1);
    assert_eq!(line.seen("HEAD", "/manifests/"), 0);
    assert_eq!(line.seen("GET", "/blobs/"), 1);
    assert_eq!(line.seen("HEAD", "/blobs/"), 0);
    // And later ones none.
    pull().await;
    let part = line
        .cache
        .send(
            "GET",
            &format!("/v2/up/team/app/blobs/{digest}"),
            &[("range", "bytes=5-9")],
            "",
        )
        .await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &bytes[5..10]));
    assert_eq!(part.header("x-towline-cache"), "hit");
    assert_eq!(line.network.seen().len(), 2);
    let metrics = line.cache.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for expected in [
        "towline_registry_cache_fills_total{upstream=\"up\"} 1",
        "towline_registry_upstream_requests_total{upstream=\"up\",status=\"2xx\"} 2",
        "towline_registry_cache_answers_total{upstream=\"up\",from=\"hit\"}",
    ] {
        assert!(metrics.contains(expected), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_can_be_read_while_the_whole_comes() {
    let line = Line::new(|_| {}).await;
    let image = image(2);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    line.network.set_rules(vec![
        Rule::on(
            "*/blobs/*",
            Fault::Trickle {
                bytes: 600_000,
                every_millis: 20,
            },
        )
        .method("GET"),
    ]);
    let path = format!("/v2/up/team/app/blobs/{digest}");
    let ask =
        async |range: &'static str| line.cache.send("GET", &path, &[("range", range)], "").await;
    let (first, last, beyond) =
        tokio::join!(ask("bytes=0-99"), ask("bytes=-100"), ask("bytes=99999999-"));
    assert_eq!(
        (first.status.as_u16(), &first.body[..]),
        (206, &bytes[..100])
    );
    assert_eq!(
        (last.status.as_u16(), &last.body[..]),
        (206, &bytes[bytes.len() - 100..])
    );
    assert_eq!(beyond.status, 416);
    assert_eq!(line.seen("GET", "/blobs/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_compared_and_followed_and_only_what_is_asked_for_is_fetched() {
    let line = Line::new(|_| {}).await;
    let build = |architecture: &str, text: &str| {
        Builder::new()
            .platform(image::Platform::linux(architecture))
            .layer(Layer::new().file("f", text))
            .build()
    };
    let (amd64, arm64) = (build("amd64", "one"), build("arm64", "two"));
    let both = image::Index::new()
        .image(amd64.clone())
        .image(arm64.clone())
        .build();
    line.push(&both, "v1").await;
    let index = line.get("manifests/v1").await;
    assert_eq!(
        (index.status.as_u16(), index.header("x-towline-cache")),
        (200, "miss")
    );
    assert_eq!(index.header("docker-content-digest"), both.digest());
    let child = line.get(&format!("manifests/{}", arm64.digest())).await;
    assert_eq!(child.body, arm64.manifest.bytes);
    assert_eq!(line.seen("GET", "/manifests/"), 2);
    assert_eq!(line.seen("GET", amd64.digest()), 0);
    // Unchanged: one HEAD. Moved: fetched anew.
    assert_eq!(
        line.get("manifests/v1").await.header("x-towline-cache"),
        "revalidated"
    );
    assert_eq!(
        (
            line.seen("GET", "/manifests/"),
            line.seen("HEAD", "/manifests/")
        ),
        (2, 1)
    );
    line.push(&amd64, "v1").await;
    let moved = line.get("manifests/v1").await;
    assert_eq!(moved.header("docker-content-digest"), amd64.digest());
    // Deleted at the upstream: gone here too.
    let deleted = line
        .origin
        .send("DELETE", "/v2/team/app/manifests/v1", &[], "")
        .await;
    assert_eq!(deleted.status, 202);
    let gone = line.get("manifests/v1").await;
    assert_eq!(
        (gone.status.as_u16(), gone.code().as_str()),
        (404, "MANIFEST_UNKNOWN")
    );
    assert_eq!(gone.json()["errors"][0]["detail"]["cause"], "TagNotFound");
}
