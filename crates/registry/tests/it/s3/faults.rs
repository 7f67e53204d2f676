//! What goes wrong with shared storage: kills, quotas, certificates, a log that was shortened, bytes that change on their way.

use std::time::{Duration, Instant};

use towline_lab::image::sha256;
use towline_registry::{Options, Quota, Role, Service};
use towline_sys::task;

use super::{Server, check, collect, put_blob, put_manifest, signal, spawn};
use crate::client::{send, try_send};

/// How often the writer is killed; more by hand.
const KILLS: &str = "TOWLINE_TEST_KILLS";

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_writer_lose_nothing_that_it_acknowledged() {
    let Some(server) = Server::start().await else {
        return;
    };
    let kills = std::env::var(KILLS).map_or(6, |kills| kills.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let (mut kept, mut next) = (Vec::new(), 0_u32);
    for round in 0..kills {
        let (mut child, address) = spawn(&server, root.path());
        let life = Duration::from_millis(fastrand::u64(50..900));
        let pushing = async {
            loop {
                let number = next;
                next += 1;
                let blob = number.to_be_bytes().repeat(30_000);
                let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(&blob));
                for (path, body) in [
                    (path, blob),
                    (
                        format!("/v2/a/blobs/uploads/?digest={}", sha256(b"{}")),
                        b"{}".to_vec(),
                    ),
                ] {
                    let answer = try_send(address, "POST", &path, &[], body).await;
                    if answer.is_none_or(|answer| answer.status != 201) {
                        std::future::pending::<()>().await;
                    }
                }
                let manifest = manifest(number);
                let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
                let path = format!("/v2/a/manifests/v{number}");
                let put = try_send(address, "PUT", &path, &kind, manifest).await;
                if put.is_some_and(|answer| answer.status == 201) {
                    kept.push(number);
                }
            }
        };
        tokio::time::timeout(life, pushing).await.unwrap_err();
        child.child().kill().unwrap();
        assert!(
            child
                .wait_timeout(Duration::from_secs(10))
                .unwrap()
                .is_some()
        );
        let checked = check(&server).await;
        assert_eq!(checked.wrong, 0, "round {round}: {checked:?}");
    }
    let writer = server.registry(root.path(), Role::Writer).await;
    collect(root.path()).await;
    for number in &kept {
        let path = format!("/v2/a/manifests/v{number}");
        let got = send(writer.local_addr(), "GET", &path, &[], "").await;
        assert_eq!(got.body, manifest(*number), "{number}");
        let digest = sha256(&number.to_be_bytes().repeat(30_000));
        let got = send(
            writer.local_addr(),
            "GET",
            &format!("/v2/a/blobs/{digest}"),
            &[],
            "",
        )
        .await;
        assert_eq!(sha256(&got.body), digest, "{number}");
    }
    assert!(!kept.is_empty(), "nothing was pushed at all");
    assert_eq!(check(&server).await.wrong, 0);
    writer.shutdown(Duration::from_secs(10)).await;
}

/// A manifest that names one layer.
fn manifest(number: u32) -> String {
    let layer = number.to_be_bytes().repeat(30_000);
    let part = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
    serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [part("application/vnd.oci.image.layer.v1.tar", &layer)]})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_over_shared_storage_and_over_a_change_of_the_writer() {
    let Some(server) = Server::start().await else {
        return;
    };
    let start = async |root: &tempfile::TempDir| {
        let mut options = Options::new(root.path());
        options.storage = Some(server.storage(Role::Writer));
        options.quota = Quota {
            total: Some(3000),
            repositories: vec![("team/*".to_owned(), 1000)],
        };
        Service::start(options).await.unwrap()
    };
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = start(&root).await;
    let at = writer.local_addr();
    assert_eq!(put_blob(at, "team/a", &[1; 600]).await.status, 201);
    let refused = put_blob(at, "team/a", &[2; 500]).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (403, "DENIED"));
    assert_eq!(put_blob(at, "free", &[3; 2000]).await.status, 201);
    writer.shutdown(Duration::from_secs(10)).await;
    let writer = start(&other).await;
    let at = writer.local_addr();
    let refused = put_blob(at, "free", &[4; 500]).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (507, "DENIED"));
    let path = format!("/v2/free/blobs/{}", sha256(&[3; 2000]));
    assert_eq!(send(at, "DELETE", &path, &[], "").await.status, 202);
    collect(other.path()).await;
    assert_eq!(put_blob(at, "free", &[4; 500]).await.status, 201);
    assert_eq!(check(&server).await.wrong, 0);
    writer.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_is_reached_by_tls_and_only_with_an_authority_that_is_trusted() {
    let ca = towline_lab::tls::Ca::new("an authority of the storage");
    let server = Server::with("https", |folder| {
        let leaf = ca.leaf(&["127.0.0.1"], towline_lab::tls::Flaw::None);
        let mut arguments = Vec::new();
        for (option, pem) in [("--cert", leaf.certificate_pem), ("--key", leaf.key_pem)] {
            let path = folder.join(option.trim_start_matches('-'));
            std::fs::write(&path, pem).unwrap();
            arguments.extend([option.to_owned(), path.display().to_string()]);
        }
        arguments
    });
    let Some(server) = server.await else { return };
    let root = tempfile::tempdir().unwrap();
    let mut options = Options::new(root.path());
    options.storage = Some(server.storage(Role::Writer));
    let refused = Service::start(options.clone()).await.unwrap_err();
    let words = task::chain(&refused);
    assert!(words.contains("no connection"), "{words}");
    let mut storage = server.storage(Role::Writer);
    storage.ca_pem.push(ca.pem().into());
    options.storage = Some(storage);
    let writer = Service::start(options).await.unwrap();
    // One that goes in parts, too.
    let large: Vec<u8> = (0..70_000_000_u32)
        .map(|at| (at % 253).to_le_bytes()[0])
        .collect();
    assert_eq!(put_blob(writer.local_addr(), "a", &large).await.status, 201);
    let path = format!("/v2/a/blobs/{}", sha256(&large));
    let got = send(writer.local_addr(), "GET", &path, &[], "").await;
    assert_eq!(sha256(&got.body), sha256(&large));
    writer.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_log_fences_a_writer_that_slept_and_leaves_no_reader_behind() {
    let Some(server) = Server::start().await else {
        return;
    };
    let roots: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = async |root: &tempfile::TempDir, role: Role| {
        let mut options = Options::new(root.path());
        let mut storage = server.storage(role);
        storage.snapshot_every = 10;
        storage.log_kept = Duration::from_secs(2);
        options.storage = Some(storage);
        Service::start(options).await.unwrap()
    };
    let (mut old, asleep) = spawn(&server, roots[0].path());
    assert_eq!(put_blob(asleep, "a", b"{}").await.status, 201);
    let config = sha256(b"{}");
    assert_eq!(
        put_manifest(asleep, "a", "v0", &config, "old").await.status,
        201
    );
    let reader = start(&roots[1], Role::Reader).await;
    let tag = async |at: std::net::SocketAddr, tag: &str| {
        send(at, "GET", &format!("/v2/a/manifests/{tag}"), &[], "")
            .await
            .status
            .as_u16()
    };
    assert_eq!(tag(reader.local_addr(), "v0").await, 200);
    signal(&mut old, "-STOP");
    let late = task::spawn("ask", {
        let config = config.clone();
        async move { put_manifest(asleep, "a", "late", &config, "late").await }
    });
    let writer = start(&roots[2], Role::Writer).await;
    for number in 0..60 {
        let name = format!("n{number}");
        let put = put_manifest(writer.local_addr(), "a", &name, &config, &name).await;
        assert_eq!(put.status, 201, "{number}");
    }
    // Each push is an entry or two; what two snapshots hold goes, but for where writers began.
    let deadline = Instant::now() + Duration::from_secs(120);
    while server.count("log") > 45 {
        assert!(
            Instant::now() < deadline,
            "{} entries stay",
            server.count("log")
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!((2..=3).contains(&server.count("snapshots")));
    signal(&mut old, "-CONT");
    let refused = late.await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (405, "UNSUPPORTED")
    );
    // The one that was asked last long ago, one that begins now, and the one that slept: all of them know everything.
    let fresh = start(&roots[3], Role::Reader).await;
    for at in [
        reader.local_addr(),
        fresh.local_addr(),
        asleep,
        writer.local_addr(),
    ] {
        let deadline = Instant::now() + Duration::from_secs(60);
        while tag(at, "n59").await != 200 {
            assert!(Instant::now() < deadline, "{at} learns of the last tag");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let list = send(at, "GET", "/v2/a/tags/list", &[], "").await.json();
        assert_eq!(list["tags"].as_array().unwrap().len(), 61, "{at}");
    }
    signal(&mut old, "-KILL");
    let checked = check(&server).await;
    assert_eq!((checked.wrong, checked.tags), (0, 61), "{checked:?}");
    writer.shutdown(Duration::from_secs(10)).await;
}
