//! Every way out.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use towline_lab::image::{self, sha256};

use crate::client::Registry;

#[tokio::test]
async fn a_blob_is_read_in_parts() {
    let registry = Registry::open().await;
    let bytes: Vec<u8> = (0..2048_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let digest = registry.blob("a", &bytes).await;
    let path = format!("/v2/a/blobs/{digest}");
    for (range, from, to) in [
        ("500-1499", 500, 1500),
        ("500-", 500, 2048),
        ("-500", 1548, 2048),
        ("2000-5000", 2000, 2048),
    ] {
        let answer = registry
            .send("GET", &path, &[("range", &format!("bytes={range}"))], "")
            .await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, bytes[from..to], "{range}");
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {from}-{}/2048", to - 1)
        );
    }
    for range in ["500-0", "5000-10000"] {
        let answer = registry
            .send("GET", &path, &[("range", &format!("bytes={range}"))], "")
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-range")),
            (416, "bytes */2048"),
            "{range}"
        );
    }
    let head = registry.send("HEAD", &path, &[], "").await;
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        ("2048", 0)
    );
    let empty = registry.blob("a", b"").await;
    assert_eq!(
        registry
            .get(&format!("/v2/a/blobs/{empty}"))
            .await
            .body
            .len(),
        0
    );
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("access.jsonl");
    let registry = Registry::with(|options| options.access_log = Some(log.clone())).await;
    image::guest()
        .build()
        .push(registry.address(), "a", "v1", None)
        .await
        .unwrap();
    let digest = sha256(b"none");
    let cases = [
        (
            "/v2/none/manifests/v1".to_owned(),
            "NAME_UNKNOWN",
            "RepositoryNotFound",
        ),
        (
            "/v2/a/manifests/v2".to_owned(),
            "MANIFEST_UNKNOWN",
            "TagNotFound",
        ),
        (
            format!("/v2/a/manifests/{digest}"),
            "MANIFEST_UNKNOWN",
            "DigestNotFound",
        ),
        (
            format!("/v2/a/blobs/{digest}"),
            "BLOB_UNKNOWN",
            "BlobMissing",
        ),
    ];
    for (path, code, cause) in &cases {
        let answer = registry
            .send("GET", path, &[("x-towline-attempt", "att-1")], "")
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, *code),
            "{path}"
        );
        let line = logged(&log, path);
        assert_eq!(
            (&line["cause"], &line["path"], &line["attempt"]),
            (&json!(cause), &json!(path), &json!("att-1"))
        );
        assert_eq!(
            (&line["status"], &line["method"]),
            (&json!(404), &json!("GET"))
        );
    }
    let metrics = String::from_utf8(registry.get("/metrics").await.body.to_vec()).unwrap();
    assert!(
        metrics.contains("towline_registry_refusals_total{cause=\"TagNotFound\"} 1\n"),
        "{metrics}"
    );
    assert_eq!(registry.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn referrers_are_listed_filtered_and_forgotten() {
    let registry = Registry::open().await;
    let config = registry.blob("a", b"{}").await;
    let subject = sha256(b"a manifest that comes later");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let document = json!({
        "schemaVersion": 2, "mediaType": media_type, "artifactType": "text/sbom",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [], "annotations": {"k": "v"},
        "subject": {"mediaType": media_type, "digest": subject, "size": 27},
    })
    .to_string();
    let digest = sha256(document.as_bytes());
    let put = registry
        .send(
            "PUT",
            &format!("/v2/a/manifests/{digest}"),
            &[("content-type", media_type)],
            document.clone(),
        )
        .await;
    assert_eq!(put.header("oci-subject"), subject);
    let list = registry.get(&format!("/v2/a/referrers/{subject}")).await;
    assert_eq!(
        list.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    let expected = json!([{"mediaType": media_type, "digest": digest, "size": document.len(), "artifactType": "text/sbom", "annotations": {"k": "v"}}]);
    assert_eq!(list.json()["manifests"], expected);
    let other = registry
        .get(&format!(
            "/v2/a/referrers/{subject}?artifactType=text%2Fother"
        ))
        .await;
    assert_eq!(
        (
            other.json()["manifests"].clone(),
            other.header("oci-filters-applied")
        ),
        (json!([]), "artifactType")
    );
    assert_eq!(
        registry
            .get(&format!("/v2/none/referrers/{subject}"))
            .await
            .status,
        200
    );
    assert_eq!(registry.get("/v2/a/referrers/sha256:x").await.status, 400);
    assert_eq!(
        registry
            .send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], "")
            .await
            .status,
        202
    );
    assert_eq!(
        registry
            .get(&format!("/v2/a/referrers/{subject}"))
            .await
            .json()["manifests"],
        json!([])
    );
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes something that refers to a digest; its own.
async fn refer(registry: &Registry, subject: &str, kind: &str, note: &str) -> String {
    let config = registry.blob("a", b"{}").await;
    let document = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [], "annotations": {"note": note},
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 27},
    })
    .to_string();
    let digest = sha256(document.as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    let put = registry.send("PUT", &path, &[("content-type", MANIFEST)], document);
    assert_eq!(put.await.status, 201);
    digest
}

/// Follows a list of referrers to its end: the pages, each as digests.
async fn pages(registry: &Registry, first: String) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), Some(first));
    while let Some(path) = next {
        let page = registry.get(&path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.len() <= 4 << 20, "{path}: {}", page.body.len());
        let listed = page.json()["manifests"].as_array().unwrap().clone();
        let digests = listed.iter().map(|one| one["digest"].as_str().unwrap());
        pages.push(digests.map(str::to_owned).collect());
        assert!(pages.len() < 20, "{pages:?}");
        let link = page.header("link").strip_prefix('<');
        next = link.map(|link| link.split_once(">; rel=\"next\"").unwrap().0.to_owned());
    }
    pages
}

#[tokio::test]
async fn referrers_come_in_pages_that_every_client_can_read() {
    let registry = Registry::with(|options| options.limits.page = 4).await;
    let subject = sha256(b"a manifest that comes later");
    let kind = "application/vnd.test.a+b; c=d";
    let (mut some, mut all) = (Vec::new(), Vec::new());
    for number in 0..9 {
        let note = number.to_string();
        let is_some = number % 3 == 0;
        let kind = if is_some { kind } else { "text/other" };
        let digest = refer(&registry, &subject, kind, &note).await;
        some.extend(is_some.then(|| digest.clone()));
        all.push(digest);
    }
    some.sort();
    all.sort();
    let list = format!("/v2/a/referrers/{subject}");
    let whole = pages(&registry, list.clone()).await;
    assert_eq!(whole.concat(), all);
    assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 1]);
    let by_two = pages(&registry, format!("{list}?n=2")).await;
    assert_eq!((by_two.concat(), by_two.len()), (all, 5));
    let filter = "artifactType=application%2Fvnd.test.a%2Bb%3B%20c%3Dd";
    let filtered = pages(&registry, format!("{list}?{filter}&n=1")).await;
    assert_eq!((filtered.concat(), filtered.len()), (some, 3));
    for (query, expected) in [("n=0", 200), ("n=x", 400), ("last=x", 400)] {
        let answer = registry.get(&format!("{list}?{query}")).await;
        assert_eq!(answer.status, expected, "{query}");
        assert_eq!(answer.header("link"), "", "{query}");
    }
    // Large ones are told apart, too: no page is larger than a manifest may be.
    let large = sha256(b"another one");
    for number in 0..3 {
        let note = format!("{number}{}", "x".repeat(1_500_000));
        refer(&registry, &large, "text/other", &note).await;
    }
    let large = pages(&registry, format!("/v2/a/referrers/{large}")).await;
    assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags() {
    let registry = Registry::open().await;
    let image = image::guest().build();
    for tag in ["v1", "v2"] {
        image
            .push(registry.address(), "a", tag, None)
            .await
            .unwrap();
    }
    assert_eq!(
        registry
            .send("DELETE", "/v2/a/manifests/v1", &[], "")
            .await
            .status,
        202
    );
    assert_eq!(registry.get("/v2/a/manifests/v1").await.status, 404);
    assert_eq!(registry.get("/v2/a/manifests/v2").await.status, 200);
    assert_eq!(
        registry
            .send(
                "DELETE",
                &format!("/v2/a/manifests/{}", image.digest()),
                &[],
                ""
            )
            .await
            .status,
        202
    );
    assert_eq!(registry.get("/v2/a/manifests/v2").await.status, 404);
    assert_eq!(
        registry.get("/v2/a/tags/list").await.json(),
        json!({"name": "a", "tags": []})
    );
}

/// The entry of a path, which is written when the answer's end was handed over.
fn logged(log: &Path, path: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        if let Some(entry) = entries.into_iter().find(|entry| entry["path"] == path) {
            return entry;
        }
        assert!(Instant::now() < until, "{path} is not in the log:\n{text}");
        std::thread::yield_now();
    }
}
