//! Known holes of other clients, each attacked with a server that does what the attacker's did.
//!
//! The table of `docs/security.md` says what closes each, and names the tests of those that other files attack.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use towline_cause::{Cause, Step};
use towline_distribution::{Options, PlainHttp, Timeouts};
use towline_keyring::Credential;
use towline_lab::dns::{Answer, Table};
use towline_oci::{Descriptor, Digest, media_type};

use crate::network::names;
use crate::stub::{Reply, Stub, bob, client, manifest, manifest_reply, options, repository, words};

/// Longer than anything here takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// "ContainerDrip": a layer's `urls` lead to a host that asks for a login, and gets the registry's.
#[tokio::test]
async fn cve_2020_15157_a_host_of_the_manifests_choosing_gets_nothing() {
    for scheme in [
        "Basic realm=\"give\"",
        "Bearer realm=\"REALM\",service=\"s\"",
    ] {
        let foreign = Stub::plain(move |seen| {
            let own = format!("http://{}/token", seen.header("host").unwrap_or_default());
            Reply::new(401).header("WWW-Authenticate", &scheme.replace("REALM", &own))
        })
        .await;
        let place = format!("http://{}/layer", foreign.address());
        // The descriptor names it, and the registry redirects to it: neither is a reason to log in there.
        let location = place.clone();
        let own = Stub::plain(move |seen| match seen.header("authorization") {
            None => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"own\""),
            Some(_) => Reply::new(307).header("Location", &location),
        })
        .await;
        let mut layer = Descriptor::of(media_type::OCI_LAYER_GZIP, b"x");
        layer.urls = vec![place];
        for credential in [bob(), Credential::basic("", "canary-password")] {
            let failure = own
                .repository(credential)
                .blob_bytes(&layer, 100)
                .await
                .unwrap_err();
            assert!(!words(&failure).contains("canary"), "{}", words(&failure));
        }
        let everything = foreign.everything().to_lowercase();
        assert!(!everything.contains("authorization"), "{everything}");
        assert!(!everything.contains("canary"), "{everything}");
        for seen in foreign.seen() {
            assert_eq!(seen.path(), "/layer", "no realm of it is asked");
        }
    }
}

/// Clients and pull-through caches sent the registry's login to any realm (CVE-2026-33540 in distribution, CVE-2026-12566 in BBOT).
#[tokio::test]
async fn cve_2026_33540_a_realm_elsewhere_gets_no_login() {
    let service = Stub::plain(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
    let port = service.port();
    let here = |name: &str| {
        (
            name.to_owned(),
            Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
        )
    };
    let table = [
        "registry.corp.test",
        "evil.test",
        "registry.corp.test.evil.test",
        "corp-test",
    ]
    .into_iter()
    .map(here)
    .fold(Table::new(), |table, (name, answer)| {
        table.with(&name, answer)
    });
    let (_server, told) = names(table).await;
    let told = Options {
        plain_http: PlainHttp::All,
        ..told
    };
    for realm in [
        format!("http://evil.test:{port}/token"),
        format!("http://registry.corp.test.evil.test:{port}/token"),
        format!("http://registry.corp.test@evil.test:{port}/token"),
        format!("http://registry.corp.test%2f@evil.test:{port}/token"),
        format!("http://evil.test:{port}\\@registry.corp.test/token"),
        format!("http://registry。corp。evil.test:{port}/token"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://2130706433:{port}/token"),
        format!("http://corp-test:{port}/token"),
        "file:///etc/passwd".to_owned(),
    ] {
        let asked = realm.clone();
        let stub = Stub::plain(move |_| {
            Reply::new(401).header(
                "WWW-Authenticate",
                &format!("Bearer realm=\"{asked}\",service=\"s\""),
            )
        })
        .await;
        let image = format!("registry.corp.test:{}/team/app:1", stub.port());
        let failure = tokio::time::timeout(
            LONG,
            repository(&client(told.clone()), &image, bob()).resolve(),
        )
        .await
        .expect("it ends")
        .unwrap_err();
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::RegistryMisconfigured, Step::Authenticate),
            "{realm}: {failure}"
        );
        assert!(!words(&failure).contains("canary"));
        assert!(!stub.everything().contains("Basic"), "{realm}");
    }
    assert!(service.seen().is_empty(), "{:?}", service.asked());
}

/// Answers every request with `head` and then with `piece`, for as long as the client reads.
async fn endless(
    head: &'static str,
    piece: &'static [u8],
) -> (SocketAddr, Arc<AtomicU64>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counter = counter.clone();
            connections.spawn(async move {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0)
                    && stream.write_all(head.as_bytes()).await.is_ok()
                {
                    while stream.write_all(piece).await.is_ok() {
                        counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (address, sent, tasks)
}

/// CVE-2020-1702 (containers/image) and its kind: what a server sends is read up to a bound, wherever it sends it.
#[tokio::test]
async fn cve_2020_1702_no_answer_is_read_without_end() {
    const CHUNK: &[u8] = b"400\r\n[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[";
    let told = || Options {
        timeouts: Timeouts {
            headers: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            ..options().timeouts
        },
        ..options()
    };
    // What sockets hold on the way comes on top of what is read.
    let most = 40 << 20;
    for (what, head, piece) in [
        (
            "a manifest without a length",
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n",
            &[b'['; 4096][..],
        ),
        (
            "a manifest in chunks that are none",
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNK,
        ),
        (
            "an error",
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n",
            &[b'{'; 4096],
        ),
        (
            "headers",
            "HTTP/1.1 200 OK\r\n",
            b"X-More: and more and more and more\r\n",
        ),
        ("one header", "HTTP/1.1 200 OK\r\nX-Long: ", &[b'x'; 4096]),
        ("no end of line", "", &[b'H'; 4096]),
    ] {
        let (address, sent, _tasks) = endless(head, piece).await;
        let repository = repository(
            &client(told()),
            &format!("{address}/a:1"),
            Credential::Anonymous,
        );
        let failure = tokio::time::timeout(LONG, repository.resolve())
            .await
            .unwrap_or_else(|_| panic!("{what} is read without end"))
            .unwrap_err();
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < most, "{what}: {sent} bytes were taken: {failure}");
        assert!(failure.to_string().len() < 4000, "{what}: {failure}");
    }
    // A token service, asked with a login.
    let (address, sent, _tasks) = endless(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"token\":\"",
        &[b'a'; 4096],
    )
    .await;
    let stub = Stub::plain(move |_| {
        Reply::new(401).header(
            "WWW-Authenticate",
            &format!("Bearer realm=\"http://{address}/token\",service=\"s\""),
        )
    })
    .await;
    let resolve = repository(&client(told()), &stub.image(), bob());
    let failure = tokio::time::timeout(LONG, resolve.resolve())
        .await
        .expect("a token is read without end")
        .unwrap_err();
    assert_eq!(failure.step(), Step::Authenticate, "{failure}");
    assert!(sent.load(Ordering::Relaxed) < most);
}

/// One byte string, a manifest to one reader and an index to another (GHSA-5j5w-g665-5m35, GHSA-qq97-vm5h-rrhg).
#[tokio::test]
async fn cve_2021_41190_a_document_of_two_meanings_has_none() {
    let entry = |kind: &str| {
        format!(
            "{{\"mediaType\":\"{kind}\",\"digest\":\"{}\",\"size\":1}}",
            Digest::of(b"x")
        )
    };
    let (layer, image) = (
        entry(media_type::OCI_LAYER),
        entry(media_type::OCI_MANIFEST),
    );
    let config = entry(media_type::OCI_CONFIG);
    let both = format!(
        "{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{layer}],\"manifests\":[{image}]}}"
    );
    let as_image = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{layer}]}}");
    let as_index = format!("{{\"schemaVersion\":2,\"manifests\":[{image}]}}");
    let named = |kind: &str, rest: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",{}",
            rest.trim_start_matches("{\"schemaVersion\":2,")
        )
    };
    let twice =
        format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{layer}],\"layers\":[]}}");
    let kinds_twice = format!(
        "{{\"mediaType\":\"{}\",\"mediaType\":\"{}\",\"schemaVersion\":2,\"manifests\":[{image}]}}",
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX
    );
    for (what, header, body) in [
        ("both, as an index", media_type::OCI_INDEX, &both),
        ("both, as an image", media_type::OCI_MANIFEST, &both),
        (
            "an index that is an image",
            media_type::OCI_INDEX,
            &as_image,
        ),
        (
            "an image that is an index",
            media_type::OCI_MANIFEST,
            &as_index,
        ),
        (
            "the field says index",
            media_type::OCI_MANIFEST,
            &named(media_type::OCI_INDEX, &as_image),
        ),
        (
            "the field says image",
            media_type::OCI_INDEX,
            &named(media_type::OCI_MANIFEST, &as_index),
        ),
        ("layers twice", media_type::OCI_MANIFEST, &twice),
        ("media type twice", media_type::OCI_INDEX, &kinds_twice),
    ] {
        let served = body.clone();
        let stub =
            Stub::plain(move |_| Reply::new(200).header("Content-Type", header).body(&served))
                .await;
        // By its own digest, which does not make it clearer.
        let digest = Digest::of(body.as_bytes());
        for name in [
            stub.image(),
            format!("{}/team/app@{digest}", stub.address()),
        ] {
            let resolved = repository(&client(options()), &name, Credential::Anonymous)
                .resolve()
                .await;
            let failure = resolved.map(|_| panic!("{what} was read")).unwrap_err();
            assert_eq!(failure.step(), Step::Resolve, "{what}: {failure}");
            assert!(
                matches!(
                    failure.cause(),
                    Cause::NotAnImage | Cause::RegistryMisconfigured
                ),
                "{what}: {failure}"
            );
        }
    }
}

/// What a server says of digests counts for nothing (containers/image used it in paths): the bytes are hashed.
#[tokio::test]
async fn cve_2024_3727_a_digest_in_a_header_is_only_a_claim() {
    let bytes = manifest(b"x");
    let zeros = format!("sha256:{}", "0".repeat(64));
    for claim in [
        zeros.as_str(),
        "sha256:../../../etc/passwd",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "",
        "x",
    ] {
        let (served, said) = (bytes.clone(), claim.to_owned());
        let stub = Stub::plain(move |_| {
            Reply::new(200)
                .header("Content-Type", media_type::OCI_MANIFEST)
                .header("Docker-Content-Digest", &said)
                .body(&served)
        })
        .await;
        let repository = stub.repository(Credential::Anonymous);
        let resolved = repository.resolve().await.unwrap();
        assert_eq!(resolved.digest, Digest::of(&bytes), "{claim}");
        let head = repository.head_manifest("1.0").await.unwrap();
        let parsed = Digest::parse(claim).ok();
        assert_eq!(head.digest, parsed, "a claim that is a digest, or none");
    }
    // A digest that was asked for is not replaced by the one that is claimed.
    let (served, claimed) = (bytes.clone(), Digest::of(b"wanted"));
    let stub = Stub::plain(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_MANIFEST)
            .header("Docker-Content-Digest", &claimed.to_string())
            .body(&served)
    })
    .await;
    let wanted = Digest::of(b"wanted");
    let failure = stub
        .repository(Credential::Anonymous)
        .manifest(&wanted)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::DigestMismatch, Step::Verify)
    );
}

/// Documents that are deep or wide cost no more than their bound.
#[tokio::test]
async fn deep_and_wide_documents_are_refused() {
    let deep = "[".repeat(100_000);
    let fields = format!(
        "{{\"schemaVersion\":2,\"annotations\":{}",
        "{\"a\":".repeat(50_000)
    );
    let entry = format!(
        "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":1}},",
        media_type::OCI_MANIFEST,
        Digest::of(b"x")
    );
    let wide = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{}{}]}}",
        entry.repeat(25_000),
        entry.trim_end_matches(',')
    );
    for body in [deep, fields, wide] {
        for kind in [media_type::OCI_MANIFEST, media_type::OCI_INDEX] {
            let served = body.clone();
            let stub =
                Stub::plain(move |_| Reply::new(200).header("Content-Type", kind).body(&served))
                    .await;
            let failure = stub
                .repository(Credential::Anonymous)
                .resolve()
                .await
                .unwrap_err();
            assert_eq!(failure.step(), Step::Resolve, "{failure}");
        }
    }
    // The honest one still resolves there.
    let bytes = manifest(b"x");
    let stub = Stub::plain(move |_| manifest_reply(&bytes)).await;
    stub.repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
}
