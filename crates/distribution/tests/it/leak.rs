//! No secret reaches a place it is not for: other hosts, errors, facts.

use std::sync::Arc;

use futures::StreamExt as _;
use towline_cause::{Cause, Failure};
use towline_distribution::{Options, PlainHttp, Recorder};
use towline_keyring::Credential;
use towline_lab::dns::{Answer, Table};
use towline_lab::tls::{Ca, Flaw};
use towline_oci::{Descriptor, Digest, media_type};

use crate::network::names;
use crate::stub::{
    AWAY, Reply, Stub, bob, client, elsewhere, manifest, manifest_reply, options, repository, words,
};

fn chain(failure: &Failure) -> String {
    let mut text = words(failure);
    for other in failure.others() {
        text.push_str(&chain(other));
    }
    text
}

#[tokio::test]
async fn a_layers_urls_are_never_asked() {
    let foreign =
        Stub::plain(|_| Reply::new(401).header("WWW-Authenticate", "Basic realm=give")).await;
    let stub = Stub::plain(|_| Reply::error(404, "BLOB_UNKNOWN", "x")).await;
    let mut descriptor = Descriptor::of(media_type::OCI_LAYER_GZIP, b"x");
    descriptor.urls = vec![format!("http://{}/layer", foreign.address())];
    let failure = stub
        .repository(bob())
        .blob(&descriptor, 0)
        .await
        .unwrap_err();
    assert_eq!(failure.cause(), Cause::BlobMissing);
    assert!(foreign.seen().is_empty());
}

#[tokio::test]
async fn another_origin_gets_no_login_and_neither_does_the_way_back() {
    let content = b"the blob";
    let registry = Stub::plain(
        move |seen| match (seen.path(), seen.header("authorization")) {
            ("/back", None) => Reply::new(200).body(content),
            ("/back", Some(_)) => Reply::new(500),
            (_, None) => Reply::new(401).header("WWW-Authenticate", "Basic realm=r"),
            (_, Some(_)) => {
                let port = seen
                    .header("host")
                    .unwrap()
                    .rsplit(':')
                    .next()
                    .unwrap()
                    .to_owned();
                // Another name of the same machine is another origin.
                Reply::new(307).header(
                    "Location",
                    &format!("http://localhost:{port}/elsewhere?home=127.0.0.1:{port}"),
                )
            }
        },
    )
    .await;
    // The first hop leaves for localhost, which the same stub serves: it is told apart by its Host.
    let descriptor = Descriptor::of(media_type::OCI_LAYER, content);
    let failure = registry
        .repository(bob())
        .blob(&descriptor, 0)
        .await
        .unwrap_err();
    assert!(chain(&failure).contains("401"), "{}", chain(&failure));
    let seen = registry.seen();
    for request in &seen {
        let host = request.header("host").unwrap();
        assert!(
            host.starts_with("127.0.0.1") || request.header("authorization").is_none(),
            "{request:?}"
        );
    }
    assert!(
        seen.iter()
            .any(|request| request.header("host").unwrap().starts_with("localhost"))
    );
}

#[tokio::test]
async fn the_way_back_is_not_authorised() {
    let content = b"the blob";
    let middle = Stub::plain(|seen| {
        let home = seen.target.split("home=").nth(1).unwrap().to_owned();
        Reply::new(302).header("Location", &format!("http://{home}/back"))
    })
    .await;
    let away = middle.address();
    let registry = Stub::plain(
        move |seen| match (seen.path(), seen.header("authorization")) {
            ("/back", None) => Reply::new(200).body(content),
            ("/back", Some(_)) => Reply::new(500),
            (_, None) => Reply::new(401).header("WWW-Authenticate", "Basic realm=r"),
            (_, Some(_)) => {
                let home = seen.header("host").unwrap();
                Reply::new(307).header("Location", &format!("http://{away}/hop?home={home}"))
            }
        },
    )
    .await;
    let descriptor = Descriptor::of(media_type::OCI_LAYER, content);
    let bytes = registry
        .repository(bob())
        .blob_bytes(&descriptor, 100)
        .await
        .unwrap();
    assert_eq!(bytes, content[..]);
    assert!(!middle.everything().to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn https_never_leads_to_http() {
    let ca = Ca::new("lab");
    let plain = Stub::plain(|_| Reply::new(200).body("x")).await;
    let location = format!("http://registry.test:{}/b", plain.port());
    let realm = format!(
        r#"Bearer realm="http://registry.test:{}/token",service=s"#,
        plain.port()
    );
    let config = ca.leaf(&["registry.test"], Flaw::None).server_config();
    let stub = Stub::tls(config, move |seen| {
        if seen.path().contains("/blobs/") {
            Reply::new(307).header("Location", &location)
        } else {
            Reply::new(401).header("WWW-Authenticate", &realm)
        }
    })
    .await;
    let (_server, told) = names(Table::new().with(
        "registry.test",
        Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
    ))
    .await;
    let client = client(Options {
        extra_ca_pem: vec![ca.pem().into_bytes()],
        ..told
    });
    let image = format!("registry.test:{}/team/app:1", stub.port());
    for credential in [bob(), Credential::Anonymous] {
        let repository = repository(&client, &image, credential);
        let blob = repository
            .blob(&Descriptor::of(media_type::OCI_LAYER, b"x"), 0)
            .await
            .unwrap_err();
        let manifest = repository.resolve().await.unwrap_err();
        for failure in [blob, manifest] {
            assert_eq!(failure.cause(), Cause::RegistryMisconfigured, "{failure}");
            assert!(failure.to_string().contains("is plain HTTP"), "{failure}");
        }
    }
    assert!(plain.seen().is_empty());
}

fn another_machine() -> Table {
    Table::new()
        .with(
            "registry.test",
            Answer::Addresses(vec![AWAY.parse().unwrap()]),
        )
        .with(
            "rebound.test",
            Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
        )
}

#[test]
fn a_registry_does_not_send_this_machine_to_itself() {
    elsewhere(|| async {
        let inner = Stub::plain(|_| Reply::new(200).body("x")).await;
        let port = inner.port();
        let (_server, told) = names(another_machine()).await;
        let client = client(Options {
            plain_http: PlainHttp::All,
            ..told
        });
        for host in ["127.0.0.1", "localhost", "rebound.test", "169.254.169.254"] {
            let location = format!("http://{host}:{port}/latest");
            let realm = format!("Bearer realm=\"{location}\",service=s");
            let stub = Stub::plain_at(AWAY, move |seen| {
                if seen.path().contains("/blobs/") {
                    Reply::new(307).header("Location", &location)
                } else {
                    Reply::new(401).header("WWW-Authenticate", &realm)
                }
            })
            .await;
            let image = format!("registry.test:{}/team/app:1", stub.port());
            let repository = repository(&client, &image, Credential::Anonymous);
            let blob = repository
                .blob(&Descriptor::of(media_type::OCI_LAYER, b"x"), 0)
                .await
                .unwrap_err();
            let manifest = repository.resolve().await.unwrap_err();
            for failure in [blob, manifest] {
                assert!(
                    failure.chain().contains("must not"),
                    "{host}: {}",
                    failure.chain()
                );
            }
        }
        assert!(inner.seen().is_empty());
    });
}

#[test]
fn a_realm_that_was_trusted_by_name_is_asked_wherever_it_is() {
    elsewhere(|| async {
        let service = Stub::plain(|_| Reply::new(200).json(r#"{"token":"t1"}"#)).await;
        let realm = format!(
            "Bearer realm=\"http://rebound.test:{}/token\",service=s",
            service.port()
        );
        let bytes = manifest(b"x");
        let stub = Stub::plain_at(AWAY, move |seen| match seen.header("authorization") {
            None => Reply::new(401).header("WWW-Authenticate", &realm),
            Some(_) => manifest_reply(&bytes),
        })
        .await;
        let (_server, told) = names(another_machine()).await;
        let client = client(Options {
            plain_http: PlainHttp::All,
            trusted_realms: vec!["rebound.test".to_owned()],
            ..told
        });
        let image = format!("registry.test:{}/team/app:1", stub.port());
        repository(&client, &image, bob()).resolve().await.unwrap();
        assert_eq!(service.seen().len(), 1);
    });
}

#[tokio::test]
async fn nothing_that_is_printed_holds_a_secret() {
    let bytes = manifest(b"x");
    let service =
        Stub::plain(|_| Reply::new(200).json(r#"{"token":"canary-token","expires_in":60}"#)).await;
    let realm = format!("http://{}/token?sig=canary-query", service.address());
    let storage = Stub::plain(|_| Reply::new(403).body("<Error><Message>see https://s3.test/b?X-Amz-Signature=canary-signature</Message></Error>")).await;
    let location = format!(
        "http://{}/b?X-Amz-Signature=canary-signature",
        storage.address()
    );
    let stub = Stub::plain(move |seen| {
        if seen.header("authorization").is_none() {
            return Reply::new(401).header(
                "WWW-Authenticate",
                &format!(r#"Bearer realm="{realm}",service="lab""#),
            );
        }
        if seen.path().contains("/blobs/") {
            return Reply::new(307).header("Location", &location);
        }
        if seen.path().ends_with("/1.0") {
            return manifest_reply(&bytes);
        }
        Reply::error(
            500,
            "UNKNOWN",
            "Authorization: Bearer canary-token was not liked",
        )
    })
    .await;
    let recorder = Arc::new(Recorder::new());
    let client = client(options());
    let repository = repository(&client, &stub.image(), bob()).observed(recorder.clone());
    repository.resolve().await.unwrap();
    let mut printed = vec![format!("{repository:?}"), format!("{client:?}")];
    for failure in [
        repository
            .blob(&Descriptor::of(media_type::OCI_LAYER, b"x"), 0)
            .await
            .map(drop)
            .unwrap_err(),
        repository.head_blob(&Digest::of(b"x")).await.unwrap_err(),
        repository.manifest(&Digest::of(b"x")).await.unwrap_err(),
        repository.tags(5).await.unwrap_err(),
    ] {
        printed.push(chain(&failure));
    }
    let facts = recorder.take();
    assert!(facts.len() > 8);
    printed.push(format!("{facts:?}"));
    printed.push(serde_json::to_string(&facts).unwrap());
    for text in printed {
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains("Ym9i"), "{text}");
    }
}

#[tokio::test]
async fn a_stream_that_fails_prints_no_secret_either() {
    let storage = Stub::plain(|_| Reply::new(200).body("xx").cut(8)).await;
    let location = format!("http://{}/b?sig=canary", storage.address());
    let stub = Stub::plain(move |_| Reply::new(307).header("Location", &location)).await;
    let descriptor = Descriptor::of(media_type::OCI_LAYER, b"12345678");
    let mut stream = stub.repository(bob()).blob(&descriptor, 0).await.unwrap();
    let mut last = None;
    while let Some(piece) = stream.next().await {
        last = Some(piece);
    }
    let failure = last.unwrap().unwrap_err();
    assert!(!chain(&failure).contains("canary"), "{}", chain(&failure));
}
