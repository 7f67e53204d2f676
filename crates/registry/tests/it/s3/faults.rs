//! What goes wrong with shared storage: kills, quotas, certificates, a log that was shortened, bytes that change on their way.

use std::time::{Duration, Instant};

use towline_lab::image::sha256;
use towline_registry::{Options, Quota, Role, Service};
use towline_sys::task;

use super::{Server, check, collect, put_blob, put_manifest, signal, spawn, spawn_with};
use crate::client::send;
use crate::crash::{COLLECTING, Pushes, kills};

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_writer_lose_nothing_that_it_acknowledged() {
    let Some(server) = Server::start().await else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let (kills, mut pushes) = (kills(6), Pushes::new(120_000));
    for round in 0.. {
        // On a machine so slow that nothing comes to its end, some more.
        if round >= kills && (!pushes.is_empty() || round >= 20 * kills) {
            break;
        }
        let writer = spawn_with(&server, root.path(), &[(COLLECTING, "1")]);
        pushes.until_killed(writer, 100..1500).await;
        // Everything is read again; in a long run not after every kill.
        if kills <= 20 || round % 10 == 9 {
            let checked = check(&server).await;
            assert_eq!(checked.wrong, 0, "round {round}: {checked:?}");
        }
    }
    let writer = server.registry(root.path(), Role::Writer).await;
    let collected = collect(root.path()).await;
    assert_eq!(collected.left_alone, [""; 0]);
    let checked = check(&server).await;
    assert_eq!(checked.wrong, 0, "{checked:?}");
    let next = pushes.next;
    assert!(
        checked.blobs < 3 * next,
        "garbage went: {checked:?} of {next}"
    );
    // What was taken away, and what a cut push left, is no object any more either.
    assert_eq!(server.objects() as u64, checked.blobs);
    pushes.are_there(writer.local_addr()).await;
    writer.shutdown(Duration::from_secs(10)).await;
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
    loop {
        let (log, snapshots) = (server.count("log"), server.count("snapshots"));
        if log <= 45 && (2..=3).contains(&snapshots) {
            break;
        }
        let now = Instant::now();
        assert!(
            now < deadline,
            "{log} entries and {snapshots} snapshots stay"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
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

/// A log of the time before logs were shortened: nothing is known of where its writers began, so its entries stay; but what comes after them
/// goes like that of any other log, however many they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_older_form_is_shortened_behind_its_end() {
    const OLD: u64 = 1200;
    let Some(server) = Server::start().await else {
        return;
    };
    let log = server.bucket().join("log");
    std::fs::create_dir_all(&log).unwrap();
    for number in 0..OLD {
        let entry = serde_json::json!({"writer": "somebody", "nonce": number, "ops": [
            {"op": "link", "repository": "old", "digest": sha256(&number.to_be_bytes()), "at": 1}]});
        std::fs::write(log.join(format!("{number:020}")), entry.to_string()).unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let start = async || {
        let mut options = Options::new(root.path());
        let mut storage = server.storage(Role::Writer);
        storage.snapshot_every = 10;
        storage.log_kept = Duration::from_secs(2);
        options.storage = Some(storage);
        Service::start(options).await.unwrap()
    };
    // The first start writes a snapshot; what the older form did not have is taken out of it.
    start().await.shutdown(Duration::from_secs(10)).await;
    let snapshots = std::fs::read_dir(server.bucket().join("snapshots")).unwrap();
    for snapshot in snapshots {
        let path = snapshot.unwrap().path();
        let mut older: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for field in ["writer", "known", "begins"] {
            assert!(older.as_object_mut().unwrap().remove(field).is_some());
        }
        std::fs::write(path, older.to_string()).unwrap();
    }
    let writer = start().await;
    let at = writer.local_addr();
    assert_eq!(put_blob(at, "a", b"{}").await.status, 201);
    let config = sha256(b"{}");
    for number in 0..60 {
        let name = format!("n{number}");
        let put = put_manifest(at, "a", &name, &config, &name).await;
        assert_eq!(put.status, 201, "{number}");
    }
    let kept = usize::try_from(OLD).unwrap() + 45;
    let deadline = Instant::now() + Duration::from_secs(180);
    while server.count("log") > kept {
        let entries = server.count("log");
        assert!(Instant::now() < deadline, "{entries} entries stay");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(server.count("log") >= usize::try_from(OLD).unwrap());
    writer.shutdown(Duration::from_secs(10)).await;
    // Whoever begins now knows everything.
    let writer = start().await;
    let at = writer.local_addr();
    let tags = send(at, "GET", "/v2/a/tags/list", &[], "").await.json();
    assert_eq!(tags["tags"].as_array().map(Vec::len), Some(60));
    let old = send(at, "GET", "/v2/old/tags/list", &[], "").await;
    assert_eq!(old.status, 200);
    writer.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_reach_the_storage_is_not_ready() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = server.registry(root.path(), Role::Writer).await;
    let reader = server.registry(other.path(), Role::Reader).await;
    let both = [writer.local_addr(), reader.local_addr()];
    for at in both {
        assert_eq!(send(at, "GET", "/readyz", &[], "").await.status, 200);
    }
    drop(server);
    for at in both {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let ready = send(at, "GET", "/readyz", &[], "").await;
            if ready.status == 503 {
                assert_eq!(&ready.body[..], b"its object storage does not answer\n");
                break;
            }
            assert!(Instant::now() < deadline, "{at} says so");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // The process itself is well.
        assert_eq!(send(at, "GET", "/healthz", &[], "").await.status, 200);
    }
}
