//! What keeps a registry running: quotas, rates, limits, readiness, and its end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use towline_lab::image::sha256;
use towline_registry::{Collection, Drain, Options, Quota, Rate, Service};

use crate::client::{Answer, Registry, SmallDisk, send};

fn quota(total: Option<u64>, repositories: &[(&str, u64)]) -> Quota {
    let repositories = repositories.iter();
    Quota {
        total,
        repositories: repositories
            .map(|(pattern, size)| ((*pattern).to_owned(), *size))
            .collect(),
    }
}

async fn push(registry: &Registry, repository: &str, bytes: &[u8]) -> Answer {
    let digest = sha256(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    registry.send("POST", &path, &[], bytes.to_vec()).await
}

fn log(registry: &Registry) -> Vec<Value> {
    let text = std::fs::read_to_string(registry.folder.path().join("access.log")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_repositorys_quota_counts_content_once_and_what_is_deleted_makes_room() {
    let registry = Registry::with(|options| {
        options.quota = quota(None, &[("team/*", 1000)]);
        options.access_log = Some(options.root.join("access.log"));
    })
    .await;
    let (first, second) = (vec![1; 600], vec![2; 500]);
    for _ in 0..3 {
        assert_eq!(push(&registry, "team/a", &first).await.status, 201);
    }
    let refused = push(&registry, "team/a", &second).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (403, "DENIED"));
    let error = &refused.json()["errors"][0];
    let words = "the quota of repository team/a is 1000 bytes, of which 600 are used: there is no room for 500 more";
    assert_eq!(error["message"], words);
    assert_eq!(
        error["detail"],
        json!({"repository": "team/a", "limit": 1000, "used": 600, "more": 500})
    );
    // Another one has its own, and one that no pattern fits has none.
    assert_eq!(push(&registry, "team/b", &second).await.status, 201);
    assert_eq!(push(&registry, "free", &second).await.status, 201);
    // A mount is no way around it, and one that fits is taken.
    let mount = |to: &str, bytes: &[u8]| {
        format!("/v2/{to}/blobs/uploads/?mount={}&from=free", sha256(bytes))
    };
    for (repository, status) in [("team/a", 403), ("team/c", 201)] {
        let path = mount(repository, &second);
        let mounted = registry.send("POST", &path, &[], "").await;
        assert_eq!(mounted.status, status, "{repository}");
    }
    let refused = log(&registry)
        .into_iter()
        .find(|entry| entry["status"] == 403)
        .unwrap();
    assert_eq!(
        (&refused["code"], &refused["cause"]),
        (&json!("DENIED"), &json!("QuotaExceeded"))
    );
    let path = format!("/v2/team/a/blobs/{}", sha256(&first));
    assert_eq!(registry.send("DELETE", &path, &[], "").await.status, 202);
    assert_eq!(push(&registry, "team/a", &second).await.status, 201);
}

#[tokio::test]
async fn the_quota_of_all_survives_a_restart_and_a_collection_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.quota = quota(Some(1000), &[]);
    let (first, second) = (vec![1; 600], vec![2; 500]);
    let post = |bytes: &[u8]| format!("/v2/a/blobs/uploads/?digest={}", sha256(bytes));
    let handle = Service::start(options.clone()).await.unwrap();
    let address = handle.local_addr();
    let pushed = send(address, "POST", &post(&first), &[], first.clone()).await;
    assert_eq!(pushed.status, 201);
    assert!(handle.shutdown(Duration::from_secs(20)).await);
    let handle = Service::start(options).await.unwrap();
    let address = handle.local_addr();
    let refused = send(address, "POST", &post(&second), &[], second.clone()).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (507, "DENIED"));
    // The same content in another repository is the same bytes.
    let path = format!("/v2/b/blobs/uploads/?digest={}", sha256(&first));
    let manifest = send(address, "POST", &path, &[], first[..0].to_vec()).await;
    assert_eq!(manifest.status, 400, "not these bytes");
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", sha256(&first));
    assert_eq!(send(address, "POST", &mount, &[], "").await.status, 201);
    for name in ["a", "b"] {
        let path = format!("/v2/{name}/blobs/{}", sha256(&first));
        assert_eq!(send(address, "DELETE", &path, &[], "").await.status, 202);
    }
    let refused = send(address, "POST", &post(&second), &[], second.clone()).await;
    assert_eq!(
        refused.status, 507,
        "the bytes are there until they are collected"
    );
    let root = folder.path().to_owned();
    let how = Collection {
        dry_run: false,
        grace: Duration::ZERO,
    };
    let collected = tokio::task::spawn_blocking(move || towline_registry::collect(&root, how));
    collected.await.unwrap().unwrap();
    let pushed = send(address, "POST", &post(&second), &[], second.clone()).await;
    assert_eq!(pushed.status, 201);
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let registry = Registry::with(|options| {
        options.limits.rate = Some(Rate {
            per_second: 1,
            burst: 5,
        });
        options.access_log = Some(options.root.join("access.log"));
    })
    .await;
    let mut limited = None;
    for _ in 0..200 {
        let answer = registry.get("/v2/").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("more than the burst and the rate");
    assert_eq!(limited.code(), "TOOMANYREQUESTS");
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1);
    // Who looks after it is not locked out.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(registry.get(path).await.status, 200, "{path}");
    }
    let metrics = registry.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(
        metrics.contains("towline_registry_refusals_total{cause=\"RateLimited\"}"),
        "{metrics}"
    );
    for name in [
        "connections_open",
        "requests_open",
        "disk_free_bytes",
        "uploads_open",
    ] {
        assert!(
            metrics.contains(&format!("\ntowline_registry_{name} ")),
            "{name}"
        );
    }
    assert!(
        log(&registry)
            .iter()
            .any(|entry| entry["cause"] == "RateLimited")
    );
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let registry = Registry::with(|options| {
        options.limits.head_bytes = 8 << 10;
        options.limits.blob_bytes = 1000;
        options.limits.uploads = 1;
    })
    .await;
    let large = "x".repeat(20 << 10);
    let answer = registry
        .send("GET", "/v2/", &[("x-large", &large)], "")
        .await;
    assert_eq!(answer.status, 431);
    let answer = push(&registry, "a", &[0; 1001]).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (413, "SIZE_INVALID")
    );
    let open = || registry.send("POST", "/v2/a/blobs/uploads/", &[], "");
    assert_eq!(open().await.status, 202);
    let answer = open().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (429, "5")
    );
}

/// Sends something over a connection of its own, without reading.
async fn connect(registry: &Registry, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(registry.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The answer's first line, and all that came.
async fn answered(stream: &mut TcpStream) -> (String, String) {
    let mut all = Vec::new();
    // However it ends: what counts is what was said before.
    stream.read_to_end(&mut all).await.ok();
    let text = String::from_utf8_lossy(&all).into_owned();
    (text.lines().next().unwrap_or_default().to_owned(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_allowed_wait_and_are_served_in_their_turn() {
    let registry = Registry::with(|options| options.limits.connections = 2).await;
    let get = "GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n";
    // They stay open, as a client keeps them for the next request.
    let held = async || {
        let mut stream = connect(&registry, get).await;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        stream
    };
    let (first, _second) = (held().await, held().await);
    let last = "GET /v2/ HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n";
    let mut third = connect(&registry, last).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(500), third.peek(&mut byte)).await;
    assert!(early.is_err(), "it waits while two are open");
    drop(first);
    assert_eq!(answered(&mut third).await.0, "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_ends_and_the_upload_goes_on_where_it_was() {
    let registry = Registry::with(|options| {
        options.limits.body_patience = Duration::from_millis(300);
        options.access_log = Some(options.root.join("access.log"));
    })
    .await;
    let open = registry.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    let location = open.header("location").to_owned();
    let half = registry.send("PATCH", &location, &[], "half").await;
    assert_eq!(half.status, 202);
    let slow = format!("PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\n and");
    let (line, text) = answered(&mut connect(&registry, &slow).await).await;
    assert!(line.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("the body stopped coming"), "{text}");
    // What came counts, so that the client goes on from there.
    let status = registry.get(&location).await;
    assert_eq!(status.header("range"), "0-7", "{status:?}");
    let digest = sha256(b"half and half");
    let last = format!("{location}?digest={digest}");
    let ended = registry.send("PUT", &last, &[], " half").await;
    assert_eq!(ended.status, 201, "{ended:?}");
    // A manifest's body, too.
    let slow = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\n{";
    let (line, text) = answered(&mut connect(&registry, slow).await).await;
    assert!(line.starts_with("HTTP/1.1 408"), "{text}");
    let refused = log(&registry)
        .into_iter()
        .filter(|entry| entry["status"] == 408);
    assert_eq!(refused.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_stops_coming_ends_the_connection() {
    let registry = Registry::with(|options| {
        options.limits.head_patience = Duration::from_millis(300);
    })
    .await;
    let mut slow = connect(&registry, "GET /v2/ HTTP/1.1\r\nHo").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), answered(&mut slow)).await;
    let (line, text) = ended.expect("the connection ends");
    assert!(
        line.is_empty() || line.starts_with("HTTP/1.1 408"),
        "{text}"
    );
}

/// However a client holds a connection for nothing, it does not hold it for long, and others get their turn.
#[tokio::test(flavor = "multi_thread")]
async fn connections_on_which_nothing_happens_end() {
    let registry = Registry::with(|options| {
        options.limits.head_patience = Duration::from_millis(300);
        options.limits.body_patience = Duration::from_millis(500);
        options.limits.connections = 4;
    })
    .await;
    // More than fits into the buffers between it and a client that does not read.
    let blob = registry.blob("a", &vec![7; 32 << 20]).await;
    let get = format!("GET /v2/a/blobs/{blob} HTTP/1.1\r\nHost: r\r\n\r\n");
    // The begin of HTTP/2 and its settings; no request.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    let kept_alive = "GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n";
    for (what, text) in [
        ("silent", ""),
        ("half a preface", "PRI * HT"),
        ("HTTP/2 without a request", preface),
        ("idle after a request", kept_alive),
        ("an answer that nobody takes", &get),
    ] {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(connect(&registry, text).await);
        }
        let asked = tokio::time::timeout(Duration::from_secs(60), registry.get("/v2/"));
        let answer = asked.await.unwrap_or_else(|_| panic!("{what}: they end"));
        assert_eq!(answer.status, 200, "{what}");
        drop(held);
    }
    // What it takes its own time for ends nothing: a push that comes slowly, but comes.
    let digest = sha256(b"slowly");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: r\r\nConnection: close\r\nContent-Length: 6\r\n\r\n"
    );
    let mut slow = connect(&registry, &head).await;
    for byte in b"slowly" {
        tokio::time::sleep(Duration::from_millis(250)).await;
        slow.write_all(&[*byte]).await.unwrap();
    }
    let (line, text) = answered(&mut slow).await;
    assert_eq!(line, "HTTP/1.1 201 Created", "{text}");
}

#[tokio::test]
async fn a_full_disk_takes_no_pushes_and_goes_on_serving() {
    let registry = Registry::with(|options| options.limits.reserve = u64::MAX).await;
    let refused = push(&registry, "a", b"x").await;
    assert_eq!(refused.status, 507);
    let words = refused.json()["errors"][0]["message"].to_string();
    assert!(words.contains("disk is full"), "{words}");
    let begun = registry.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status, 507);
    let ready = registry.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready
            .body
            .starts_with(b"ok for pulls; the registry's disk is full")
    );
    assert_eq!(registry.get("/readyz?for=push").await.status, 503);
    assert_eq!(registry.get("/healthz").await.status, 200);
}

/// Begins a push of more bytes than are sent; the connection that holds it open.
async fn half_a_push(registry: &Registry) -> TcpStream {
    let mut stream = TcpStream::connect(registry.address()).await.unwrap();
    let digest = sha256(b"x");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\nx"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    loop {
        let metrics = registry.get("/metrics").await.body;
        // This request is one of them.
        if String::from_utf8_lossy(&metrics).contains("\ntowline_registry_requests_open 2\n") {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_stops_then_waits_and_names_what_it_cuts() {
    let registry = Registry::with(|options| {
        options.drain = Drain {
            announce: Duration::from_secs(5),
            deadline: Duration::from_millis(200),
        };
    })
    .await;
    assert_eq!(registry.get("/readyz").await.status, 200);
    let mut held = half_a_push(&registry).await;
    let address = registry.address();
    let Registry { handle, folder } = registry;
    let stopping = towline_sys::task::spawn("stop the registry", handle.drain());
    loop {
        // It announces for long enough to be seen, and goes on with its work.
        let ready = send(address, "GET", "/readyz", &[], "").await;
        if ready.status == 503 {
            assert_eq!(&*ready.body, b"it was told to stop\n");
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(send(address, "GET", "/v2/", &[], "").await.status, 200);
    let cut = stopping.await.unwrap();
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(
        cut[0].starts_with("POST /v2/a/blobs/uploads/, under way for "),
        "{cut:?}"
    );
    let mut rest = Vec::new();
    // Reset or ended, but not answered.
    held.read_to_end(&mut rest).await.ok();
    assert!(rest.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_really_fills_up_loses_nothing_and_recovers() {
    let Some(disk) = SmallDisk::new(4) else {
        return;
    };
    let mut options = Options::new(disk.0.path());
    // So that the disk itself says that it is full.
    options.limits.reserve = 0;
    let handle = Service::start(options).await.unwrap();
    let address = handle.local_addr();
    let blob = |number: u8| vec![number; 300_000];
    let post = |bytes: &[u8]| format!("/v2/a/blobs/uploads/?digest={}", sha256(bytes));
    let mut kept = Vec::new();
    for number in 0..30 {
        let bytes = blob(number);
        let answer = send(address, "POST", &post(&bytes), &[], bytes.clone()).await;
        match answer.status.as_u16() {
            201 => kept.push(number),
            507 => {
                let words = answer.json()["errors"][0]["message"].to_string();
                assert!(words.contains("disk is full"), "{words}");
            }
            status => panic!("{status}: {:?}", answer.body),
        }
    }
    assert!((5..20).contains(&kept.len()), "{kept:?}");
    let whole = async |number: u8| {
        let path = format!("/v2/a/blobs/{}", sha256(&blob(number)));
        send(address, "GET", &path, &[], "").await.body == blob(number)
    };
    for number in &kept {
        assert!(whole(*number).await, "{number}");
    }
    let found = towline_registry::check(disk.0.path(), false).unwrap();
    assert_eq!(found.problems, []);
    let path = format!("/v2/a/blobs/{}", sha256(&blob(kept[0])));
    assert_eq!(send(address, "DELETE", &path, &[], "").await.status, 202);
    let root = disk.0.path().to_owned();
    let how = Collection {
        dry_run: false,
        grace: Duration::ZERO,
    };
    let collected = tokio::task::spawn_blocking(move || towline_registry::collect(&root, how));
    collected.await.unwrap().unwrap();
    // A collection takes links that no manifest names, too: what it left is whole, and there is room again.
    let bytes = blob(200);
    let answer = send(address, "POST", &post(&bytes), &[], bytes.clone()).await;
    assert_eq!(answer.status, 201);
    assert!(whole(200).await);
    let found = towline_registry::check(disk.0.path(), false).unwrap();
    assert_eq!(found.problems, []);
    assert!(handle.shutdown(Duration::from_secs(20)).await);
}
