//! Upstreams that fail, are slow, limit, or lie.

use std::net::SocketAddr;
use std::time::Duration;

use towline_lab::faults::{Fault, Nth, Rule};
use towline_lab::image::Builder;

use super::{Line, image, layer};

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
async fn a_dead_upstream_keeps_no_image_that_was_pulled_from_running() {
    let line = Line::new(|_| {}).await;
    let image = image(14);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    line.get("manifests/v1").await;
    line.get(&format!("blobs/{digest}")).await;
    let Line {
        origin,
        network,
        cache,
    } = line;
    let endpoint = format!("http://{}", network.local_addr());
    drop((origin, network));
    let get = async |path: &str| cache.get(&format!("/v2/up/team/app/{path}")).await;
    for _ in 0..3 {
        let held = get("manifests/v1").await;
        let told = (held.status.as_u16(), held.header("x-towline-cache"));
        assert_eq!(told, (200, "stale"));
        assert_eq!(held.body, image.manifest.bytes);
        assert!(get(&format!("blobs/{digest}")).await.body == bytes);
    }
    let refused = get("manifests/v2").await;
    assert_eq!(refused.status, 502);
    let detail = &refused.json()["errors"][0]["detail"];
    assert_eq!(
        (&detail["step"], &detail["endpoint"]),
        (&"connect".into(), &endpoint.into()),
        "{detail}"
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

/// A client that waits for a slow upstream holds its connection for something.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_slow_upstream_is_not_taken_for_idle() {
    let line = Line::new(|options| {
        options.limits.head_patience = Duration::from_millis(100);
        options.limits.body_patience = Duration::from_millis(100);
    })
    .await;
    let image = image(13);
    line.push(&image, "v1").await;
    let (digest, bytes) = layer(&image);
    let (answer, body) = (
        Fault::Delay { millis: 700 },
        Fault::Trickle {
            bytes: 1_000_000,
            every_millis: 500,
        },
    );
    line.network.set_rules(vec![
        Rule::on("*/manifests/*", answer),
        Rule::on("*/blobs/*", body).method("GET"),
    ]);
    assert_eq!(line.get("manifests/v1").await.status, 200);
    let blob = line.get(&format!("blobs/{digest}")).await;
    assert!(blob.body == bytes, "{} bytes came", blob.body.len());
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
    // What is left is shown to whoever looks, machines and people.
    let text = async |path: &str| {
        let got = line.cache.get(path).await;
        assert_eq!(got.status, 200, "{path}");
        String::from_utf8(got.body.to_vec()).unwrap()
    };
    let metrics = text("/metrics").await;
    for (name, value) in [("limit", 100), ("remaining", 1)] {
        let expected =
            format!("towline_registry_upstream_budget_{name}{{upstream=\"up\"}} {value}\n");
        assert!(metrics.contains(&expected), "{metrics}");
    }
    let page = text("/ui/upstreams").await;
    for words in ["1 of 100 in 6 h", "as up/…", ">asked<"] {
        assert!(page.contains(words), "{words}: {page}");
    }
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
    let page = text("/ui/upstreams").await;
    assert!(
        page.contains("left alone for") && page.contains("RateLimited"),
        "{page}"
    );
}

/// Whatever a web server in the upstream's place answers, it is told as what it is, and nothing of it is kept or sent on.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_for_a_manifest_or_a_blob_is_no_damage() {
    let line = Line::new(|_| {}).await;
    let image = image(12);
    line.push(&image, "v1").await;
    line.get("manifests/v1").await;
    let (known, _) = layer(&image);
    let page = "<!doctype html><html><title>Log in</title></html>";
    let answer = |kind: Option<&str>| Fault::Answer {
        status: 200,
        headers: kind
            .map(|kind| ("content-type".to_owned(), kind.to_owned()))
            .into_iter()
            .collect(),
        body: page.to_owned(),
    };
    // One blob whose size is known by its manifest, and one of which nothing is known: then the page's length is the blob's.
    let unknown = towline_lab::image::sha256(b"unknown");
    for kind in [Some("text/html; charset=utf-8"), None, Some("text/plain")] {
        line.network.set_rules(vec![Rule::on("*", answer(kind))]);
        for path in [
            format!("blobs/{known}"),
            format!("blobs/{unknown}"),
            format!("manifests/{unknown}"),
        ] {
            let path = format!("/v2/up/team/app/{path}");
            let got = line.cache.get(&path).await;
            assert_eq!(got.status, 502, "{kind:?} {path}");
            let error = got.json()["errors"][0].clone();
            assert_eq!(
                error["detail"]["cause"], "NotARegistry",
                "{kind:?} {path}: {error}"
            );
        }
    }
    let page = line.cache.get("/ui/refusals").await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("ProxyCacheFailed: NotARegistry"), "{page}");
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
