//! The pull-through cache in front of a registry whose network misbehaves on command.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use towline_lab::faults::{Fault, Nth, Proxy, Rule};
use towline_lab::image::{self, Builder, Image, Layer};
use towline_registry::{Options, Upstream};

use crate::client::{Answer, Registry};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_leaves_what_is_held_and_names_its_cause_for_the_rest() {
    let line = Line::new(|_| {}).await;
    let image = image(3);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    assert_eq!(line.get("manifests/v1").await.status, 200);
    assert_eq!(line.get(&format!("blobs/{digest}")).await.body, bytes);
    let error = |status: u16, code: &str| Fault::Error {
        status,
        code: code.to_owned(),
        message: "no".to_owned(),
    };
    for (fault, status, cause, told) in [
        (
            error(500, "UNKNOWN"),
            502,
            "RegistryError",
            "ProxyCacheFailed",
        ),
        (
            error(401, "UNAUTHORIZED"),
            502,
            "NoCredentials",
            "ProxyCacheFailed",
        ),
        (
            error(403, "DENIED"),
            502,
            "NoCredentials",
            "ProxyCacheFailed",
        ),
        (Fault::HtmlPage, 502, "NotARegistry", "ProxyCacheFailed"),
        (Fault::Close, 502, "ConnectionReset", "ProxyCacheFailed"),
    ] {
        line.network.set_rules(vec![Rule::on("*", fault.clone())]);
        let held = line.get("manifests/v1").await;
        assert_eq!(
            (held.status.as_u16(), held.header("x-towline-cache")),
            (200, "stale"),
            "{fault:?}"
        );
        assert_eq!(held.body, image.manifest.bytes);
        let warning = held.header("warning");
        assert!(
            warning.starts_with("299 - \"stale copy: upstream ") && warning.contains(cause),
            "{warning}"
        );
        assert_eq!(line.get(&format!("blobs/{digest}")).await.status, 200);
        let other = line.get("manifests/v2").await;
        assert_eq!(other.status, status, "{fault:?} {other:?}");
        let detail = &other.json()["errors"][0]["detail"];
        assert_eq!(detail["cause"], cause, "{fault:?}");
        assert_eq!(
            detail["endpoint"],
            format!("http://{}", line.network.local_addr())
        );
        let message = other.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains(&format!("[towline: cause={told} ")),
            "{message}"
        );
    }
    // The network is well again, and so is the cache.
    line.network.set_rules(Vec::new());
    assert_eq!(
        line.get("manifests/v1").await.header("x-towline-cache"),
        "revalidated"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_does_not_hold_up_what_is_held() {
    let line = Line::new(|options| {
        options.cache.patience = Duration::from_millis(200);
        options.cache.failure_ttl = Duration::from_secs(600);
    })
    .await;
    let image = image(4);
    line.push(&image, "v1").await;
    line.get("manifests/v1").await;
    line.network.set_rules(vec![Rule::on("*", Fault::Stall)]);
    for _ in 0..3 {
        let held = line.get("manifests/v1").await;
        assert_eq!(
            (held.status.as_u16(), held.header("x-towline-cache")),
            (200, "stale")
        );
    }
    assert_eq!(
        line.seen("HEAD", "/manifests/"),
        1,
        "a failure counts for a while"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_respected_and_shown() {
    let line = Line::new(|_| {}).await;
    line.push(&image(5), "v1").await;
    let limits = [
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "1;w=21600"),
    ];
    let set = limits
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    line.network
        .set_rules(vec![Rule::on("*", Fault::Headers { set })]);
    line.get("manifests/v1").await;
    let retry_after = Some("120".to_owned());
    line.network
        .set_rules(vec![Rule::on("*", Fault::RateLimit { retry_after })]);
    let before = line.network.seen().len();
    for tag in ["v2", "v3", "v2"] {
        let refused = line.get(&format!("manifests/{tag}")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (429, "TOOMANYREQUESTS")
        );
        assert_eq!(refused.header("retry-after"), "120");
        let detail = &refused.json()["errors"][0]["detail"];
        assert_eq!(detail["cause"], "RateLimited");
        assert_eq!(detail["budget"]["remaining"], 1);
    }
    assert_eq!(
        line.network.seen().len() - before,
        1,
        "nothing is asked before the time is over"
    );
    assert_eq!(
        line.get("manifests/v1").await.header("x-towline-cache"),
        "stale"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lying_upstream_sends_is_never_whole_and_never_kept() {
    let line = Line::new(|_| {}).await;
    let image = image(6);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    let path = format!("/v2/up/team/app/blobs/{digest}");
    line.get("manifests/v1").await;
    for (fault, size) in [
        (Fault::Corrupt { at: 7 }, bytes.len()),
        (
            Fault::Corrupt {
                at: bytes.len() as u64 - 1,
            },
            bytes.len(),
        ),
        (
            Fault::Append {
                text: "more".to_owned(),
            },
            bytes.len(),
        ),
        (Fault::Truncate { after: 0 }, bytes.len()),
    ] {
        line.network
            .set_rules(vec![Rule::on("*/blobs/*", fault.clone()).method("GET")]);
        let got = bytes_of(line.cache.address(), &path).await;
        assert!(got < size, "{fault:?} gave {got} of {size} bytes");
        assert_eq!(
            line.cache
                .send("HEAD", &path, &[], "")
                .await
                .header("x-towline-cache"),
            "miss",
            "{fault:?}"
        );
    }
    line.network.set_rules(vec![
        Rule::on("*/manifests/*", Fault::Corrupt { at: 40 }).method("GET"),
    ]);
    let manifest = line
        .get(&format!("manifests/{}", Builder::new().build().digest()))
        .await;
    assert_ne!(manifest.status, 200);
    line.network.set_rules(Vec::new());
    assert_eq!(line.get(&format!("blobs/{digest}")).await.body, bytes);
    let staged = std::fs::read_dir(line.cache.folder.path().join("staging"))
        .unwrap()
        .count();
    assert_eq!(staged, 0);
}

/// How many bytes of a body come, however it ends; none of an answer that is no success.
async fn bytes_of(address: SocketAddr, path: &str) -> usize {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // A reset is one way to end a body early.
    stream.read_to_end(&mut all).await.ok();
    if !all.starts_with(b"HTTP/1.1 200") {
        return 0;
    }
    let head = all
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    all.len() - head - 4
}

#[tokio::test(flavor = "multi_thread")]
async fn names_mirrors_and_pushes() {
    let line = Line::new(|_| {}).await;
    let image = image(7);
    line.push(&image, "v1").await;
    let host = line.network.local_addr().to_string();
    // As containerd asks a mirror.
    let mirrored = line
        .cache
        .get(&format!("/v2/team/app/manifests/v1?ns={host}"))
        .await;
    assert_eq!(mirrored.status, 200);
    assert_eq!(
        line.get("manifests/v1")
            .await
            .header("docker-content-digest"),
        image.digest()
    );
    let other = line
        .cache
        .get("/v2/team/app/manifests/v1?ns=elsewhere.example")
        .await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (404, "NAME_UNKNOWN")
    );
    // Lists come from the upstream; what is here is a repository like any other.
    assert_eq!(
        line.get("tags/list").await.json(),
        json!({"name": "up/team/app", "tags": ["v1"]})
    );
    assert_eq!(
        line.cache.get("/v2/_catalog").await.json(),
        json!({"repositories": ["up/team/app"]})
    );
    let referrers = line.get(&format!("referrers/{}", image.digest())).await;
    assert_eq!(referrers.json()["manifests"], json!([]));
    // Pushes go to the upstream itself, and to repositories of this registry's own.
    let refused = line
        .cache
        .send("POST", "/v2/up/team/app/blobs/uploads/", &[], "")
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (405, "UNSUPPORTED")
    );
    line.cache.blob("own/app", b"x").await;
    // What is deleted here is fetched again.
    let path = format!("/v2/up/team/app/manifests/{}", image.digest());
    assert_eq!(line.cache.send("DELETE", &path, &[], "").await.status, 202);
    assert_eq!(
        line.cache.get(&path).await.header("x-towline-cache"),
        "miss"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_shared_but_only_with_the_upstreams_consent() {
    let line = Line::new(|_| {}).await;
    let image = image(8);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    line.get("manifests/v1").await;
    line.get(&format!("blobs/{digest}")).await;
    let other = format!("/v2/up/other/app/blobs/{digest}");
    assert_eq!(line.cache.get(&other).await.status, 404);
    image
        .push(line.origin.address(), "other/app", "v1", None)
        .await
        .unwrap();
    let before = line.seen("GET", "/blobs/");
    assert_eq!(line.cache.get(&other).await.body, bytes);
    assert_eq!(
        line.seen("GET", "/blobs/"),
        before,
        "the bytes were here already"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_the_upstream_is_used_and_passed_to_nobody() {
    use towline_keyring::Credential;
    use towline_registry::access::{Access, Users};
    let mut users = Users::default();
    users.insert("cache", &"secret".into()).unwrap();
    let origin = Registry::with(|options| options.access = Access::private(users)).await;
    let image = image(9);
    image
        .push(
            origin.address(),
            "team/app",
            "v1",
            Some(("cache", "secret")),
        )
        .await
        .unwrap();
    let with = async |credential: Credential| {
        let mut upstream = Upstream::parse(&format!("up=http://{}", origin.address())).unwrap();
        upstream.credential = credential;
        Registry::with(|options| options.cache.upstreams = vec![upstream]).await
    };
    let path = "/v2/up/team/app/manifests/v1";
    let good = with(Credential::basic("cache", "secret")).await;
    assert_eq!(good.get(path).await.status, 200);
    let bad = with(Credential::basic("cache", "canary-password"))
        .await
        .get(path)
        .await;
    assert_eq!(bad.status, 502);
    assert_eq!(
        bad.json()["errors"][0]["detail"]["cause"],
        "WrongCredentials"
    );
    assert!(!String::from_utf8_lossy(&bad.body).contains("canary"));
    assert!(bad.headers.get("www-authenticate").is_none());
    let none = with(Credential::Anonymous).await.get(path).await;
    assert_eq!(none.json()["errors"][0]["detail"]["cause"], "NoCredentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_fault_is_not_seen_by_the_client() {
    let line = Line::new(|_| {}).await;
    let image = image(10);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    line.get("manifests/v1").await;
    line.network.set_rules(vec![
        Rule::on("*/blobs/*", Fault::ResetBody { after: 1_000_000 })
            .method("GET")
            .nth(Nth::First(1)),
    ]);
    assert_eq!(line.get(&format!("blobs/{digest}")).await.body, bytes);
    assert_eq!(line.seen("GET", "/blobs/"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_learns_the_upstreams_cause() {
    use towline_cause::{Cause, Step};
    use towline_distribution::{Client, Options, Trace};
    use towline_keyring::Credential;
    let line = Line::new(|_| {}).await;
    line.push(&image(11), "v1").await;
    let client = Client::new(Options::default()).unwrap();
    let resolve = async |tag: &str| {
        let name = format!("{}/up/team/app:{tag}", line.cache.address());
        let reference = towline_oci::Reference::parse(&name).unwrap();
        let repository = client.repository(&reference, Credential::Anonymous, Trace::default());
        repository.once().resolve().await
    };
    assert!(resolve("v1").await.is_ok());
    assert_eq!(resolve("v2").await.unwrap_err().cause(), Cause::TagNotFound);
    line.network.set_rules(vec![Rule::on(
        "*",
        Fault::Error {
            status: 403,
            code: "DENIED".to_owned(),
            message: "no".to_owned(),
        },
    )]);
    let failure = resolve("v3").await.unwrap_err();
    let network = format!("http://{}", line.network.local_addr());
    assert_eq!(failure.cause(), Cause::ProxyCacheFailed);
    assert_eq!(
        failure.endpoint().unwrap(),
        format!("http://{}", line.cache.address())
    );
    assert!(
        failure.detail().contains("NoCredentials") && failure.detail().contains(&network),
        "{}",
        failure.detail()
    );
    let beneath = &failure.others()[0];
    assert_eq!(
        (beneath.cause(), beneath.step(), beneath.endpoint()),
        (
            Cause::NoCredentials,
            Step::Authenticate,
            Some(network.as_str())
        )
    );
    line.network.set_rules(vec![Rule::on(
        "*",
        Fault::RateLimit {
            retry_after: Some("60".to_owned()),
        },
    )]);
    let limited = resolve("v4").await.unwrap_err();
    assert_eq!(
        (limited.cause(), limited.wait()),
        (Cause::RateLimited, Some(Duration::from_secs(60)))
    );
}
