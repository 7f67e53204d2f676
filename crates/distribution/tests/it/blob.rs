//! Blobs that are cut, stalled, short, long, shifted, redirected.

use std::sync::Arc;

use futures::StreamExt as _;
use towline_cause::{Cause, Failure, Step};
use towline_distribution::Repository;
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, media_type};

use crate::stub::{Reply, Stub, bob, words};

fn content() -> Arc<[u8]> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, content)
}

async fn read(
    repository: &Repository,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<Vec<u8>, Failure> {
    let mut stream = repository.blob(descriptor, offset).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    assert!(stream.next().await.is_none());
    Ok(bytes)
}

/// The start of the range that was asked for.
fn start(range: Option<&str>) -> usize {
    range.map_or(0, |range| {
        let range = range.strip_prefix("bytes=").unwrap();
        range.split('-').next().unwrap().parse().unwrap()
    })
}

fn partial(content: &[u8], from: usize) -> Reply {
    Reply::new(206)
        .header(
            "Content-Range",
            &format!("bytes {from}-{}/{}", content.len() - 1, content.len()),
        )
        .body(&content[from..])
}

#[tokio::test]
async fn a_blob_comes_whole_and_from_an_offset() {
    let content = content();
    let served = content.clone();
    let stub = Stub::plain(move |seen| match seen.header("range") {
        None => Reply::new(200).body(&served),
        range => partial(&served, start(range)),
    })
    .await;
    let repository = stub.repository(Credential::Anonymous);
    let descriptor = descriptor(&content);
    assert!(read(&repository, &descriptor, 0).await.unwrap() == content[..]);
    assert!(read(&repository, &descriptor, 77_777).await.unwrap() == content[77_777..]);
    assert!(
        read(&repository, &descriptor, descriptor.size)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(stub.seen()[1].header("range"), Some("bytes=77777-399999"));
    assert_eq!(stub.seen().len(), 2);
}

#[tokio::test]
async fn a_cut_is_resumed_where_it_happened() {
    let content = content();
    let served = content.clone();
    // Each answer is cut 60 000 bytes further on.
    let stub = Stub::plain(move |seen| {
        let from = start(seen.header("range"));
        let to = served.len().min(from + 60_000);
        let reply = if from == 0 {
            Reply::new(200).body(&served[..to])
        } else {
            partial(&served[..], from).body(&served[from..to])
        };
        if to < served.len() {
            reply.cut(served.len() - from)
        } else {
            reply
        }
    })
    .await;
    let bytes = read(
        &stub.repository(Credential::Anonymous),
        &descriptor(&content),
        0,
    )
    .await
    .unwrap();
    assert!(bytes == content[..]);
    assert_eq!(stub.seen().len(), 7, "progress is no reason to give up");
}

#[tokio::test]
async fn a_server_that_fails_for_a_moment_is_asked_again() {
    let content = content();
    let served = content.clone();
    let stub = Stub::plain(move |seen| match seen.number {
        1 => Reply::new(200).body(&served[..1000]).cut(served.len()),
        2..=4 => Reply::new(502),
        _ => partial(&served, start(seen.header("range"))),
    })
    .await;
    let repository = stub.repository(Credential::Anonymous);
    assert!(read(&repository, &descriptor(&content), 0).await.unwrap() == content[..]);
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    let content = content();
    let served = content.clone();
    let stub = Stub::plain(move |seen| {
        if seen.number == 1 {
            Reply::new(200).body(&served[..1000]).cut(served.len())
        } else {
            Reply::new(200).body(&served)
        }
    })
    .await;
    assert!(
        read(
            &stub.repository(Credential::Anonymous),
            &descriptor(&content),
            0
        )
        .await
        .unwrap()
            == *content
    );
}

#[tokio::test]
async fn what_cannot_be_resumed_says_so() {
    let content = content();
    let half = content.len() / 2;
    for (name, second, cause, step) in [
        (
            "another range",
            partial(&content, half + 1),
            Cause::DigestMismatch,
            Step::Verify,
        ),
        (
            "no range header",
            Reply::new(206).body(&content[half..]),
            Cause::DigestMismatch,
            Step::Verify,
        ),
        (
            "nothing left",
            Reply::new(416),
            Cause::DigestMismatch,
            Step::Verify,
        ),
        (
            "gone",
            Reply::error(404, "BLOB_UNKNOWN", "blob unknown"),
            Cause::BlobMissing,
            Step::Fetch,
        ),
        (
            "silence",
            partial(&content, half).body("").stall(half),
            Cause::PullStalled,
            Step::Fetch,
        ),
        (
            "cut without a byte",
            partial(&content, half).body("").cut(half),
            Cause::ConnectionReset,
            Step::Fetch,
        ),
    ] {
        let served = content.clone();
        let stub = Stub::plain(move |seen| {
            if seen.number == 1 {
                Reply::new(200)
                    .body(&served[..served.len() / 2])
                    .cut(served.len())
            } else {
                second.clone()
            }
        })
        .await;
        let failure = read(
            &stub.repository(Credential::Anonymous),
            &descriptor(&content),
            0,
        )
        .await
        .unwrap_err();
        assert_eq!(
            (failure.cause(), failure.step()),
            (cause, step),
            "{name}: {}",
            words(&failure)
        );
    }
}

#[tokio::test]
async fn sizes_are_those_of_the_descriptor() {
    let content = content();
    let longer = [&content[..], b"more"].concat();
    for (name, reply) in [
        ("announced longer", Reply::new(200).body(&longer)),
        ("announced shorter", Reply::new(200).body(&content[1..])),
        (
            "encoded",
            Reply::new(200)
                .header("Content-Encoding", "gzip")
                .body(&content),
        ),
    ] {
        let stub = Stub::plain(move |_| reply.clone()).await;
        let failure = read(
            &stub.repository(Credential::Anonymous),
            &descriptor(&content),
            0,
        )
        .await
        .unwrap_err();
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::DigestMismatch, Step::Verify),
            "{name}: {failure}"
        );
    }
    // Without a length: chunked, and one chunk too many.
    let raw = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n3\r\n678\r\n0\r\n\r\n".as_slice(),
    ]
    .concat();
    let stub = Stub::plain(move |_| Reply::raw(&raw)).await;
    let failure = read(
        &stub.repository(Credential::Anonymous),
        &descriptor(b"01234567"),
        0,
    )
    .await
    .unwrap_err();
    assert!(failure.to_string().contains("more bytes came"), "{failure}");
}

#[tokio::test]
async fn small_blobs_are_verified() {
    let stub = Stub::plain(|_| Reply::new(200).body("forged!")).await;
    let repository = stub.repository(Credential::Anonymous);
    let honest = Descriptor::of(media_type::OCI_CONFIG, b"forged!");
    assert_eq!(
        repository.blob_bytes(&honest, 100).await.unwrap(),
        b"forged!"[..]
    );
    let wanted = Descriptor::of(media_type::OCI_CONFIG, b"genuine");
    let failure = repository.blob_bytes(&wanted, 100).await.unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::DigestMismatch, Step::Verify)
    );
    let failure = repository.blob_bytes(&wanted, 3).await.unwrap_err();
    assert_eq!(failure.cause(), Cause::ImageTooLarge);
}

#[tokio::test]
async fn redirects_to_storage() {
    let content = content();
    let served = content.clone();
    let storage = Stub::plain(move |seen| {
        // Like S3: a second kind of login is an error.
        if seen.header("authorization").is_some() {
            return Reply::new(400).body("<Error><Code>InvalidArgument</Code></Error>");
        }
        Reply::new(200).body(&served)
    })
    .await;
    let location = format!(
        "http://{}/bucket/blob?X-Amz-Signature=canary",
        storage.address()
    );
    let stub = Stub::plain(move |seen| {
        if seen.header("authorization").is_none() {
            return Reply::new(401).header("WWW-Authenticate", "Basic realm=r");
        }
        Reply::new(307).header("Location", &location)
    })
    .await;
    let repository = stub.repository(bob());
    assert!(read(&repository, &descriptor(&content), 0).await.unwrap() == content[..]);
    let head = repository.head_blob(&Digest::of(&content)).await.unwrap();
    assert_eq!(head.endpoint, format!("http://{}", storage.address()));
    assert!(
        !storage
            .everything()
            .to_lowercase()
            .contains("authorization")
    );
}

#[tokio::test]
async fn storage_that_is_not_there() {
    let dead = towline_lab::blackhole::refused().await.unwrap();
    let location = format!("http://{dead}/bucket/blob?sig=canary");
    let stub = Stub::plain(move |_| Reply::new(307).header("Location", &location)).await;
    let failure = read(
        &stub.repository(Credential::Anonymous),
        &descriptor(b"x"),
        0,
    )
    .await
    .unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::BlobHostUnreachable, Step::Fetch)
    );
    assert_eq!(failure.endpoint(), Some(format!("http://{dead}").as_str()));
    assert_eq!(failure.others()[0].step(), Step::Connect);
    assert!(
        failure.to_string().contains("connection refused"),
        "{failure}"
    );
    assert!(!words(&failure).contains("canary"), "{}", words(&failure));
}

#[tokio::test]
async fn storage_that_denies() {
    let storage = Stub::plain(|_| {
        Reply::new(403)
            .header("Content-Type", "application/xml")
            .body("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
    })
    .await;
    let location = format!("http://{}/b", storage.address());
    let stub = Stub::plain(move |_| Reply::new(307).header("Location", &location)).await;
    let failure = read(
        &stub.repository(Credential::Anonymous),
        &descriptor(b"x"),
        0,
    )
    .await
    .unwrap_err();
    assert_eq!(failure.cause(), Cause::BlobHostUnreachable);
    assert!(
        failure.to_string().contains("Request has expired"),
        "{failure}"
    );
}

#[tokio::test]
async fn redirects_that_are_not_followed() {
    for (location, word) in [
        ("", "names none"),
        ("ftp://x/y", "neither http nor https"),
        ("http://u:canary@127.0.0.1:1/y", "user name"),
    ] {
        let stub = Stub::plain(move |_| {
            if location.is_empty() {
                Reply::new(307)
            } else {
                Reply::new(307).header("Location", location)
            }
        })
        .await;
        let failure = read(
            &stub.repository(Credential::Anonymous),
            &descriptor(b"x"),
            0,
        )
        .await
        .unwrap_err();
        assert_eq!(failure.cause(), Cause::RegistryMisconfigured);
        assert!(failure.to_string().contains(word), "{failure}");
        assert!(!words(&failure).contains("canary"));
    }
    let stub = Stub::plain(|seen| Reply::new(302).header("Location", seen.path())).await;
    let failure = read(
        &stub.repository(Credential::Anonymous),
        &descriptor(b"x"),
        0,
    )
    .await
    .unwrap_err();
    assert!(
        failure.to_string().contains("redirects more than 5 times"),
        "{failure}"
    );
    assert_eq!(stub.seen().len(), 6);
}

#[tokio::test]
async fn a_missing_blob() {
    let stub = Stub::plain(|_| Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry")).await;
    let repository = stub.repository(Credential::Anonymous);
    for failure in [
        read(&repository, &descriptor(b"x"), 0).await.unwrap_err(),
        repository.head_blob(&Digest::of(b"x")).await.unwrap_err(),
    ] {
        assert_eq!(
            (failure.cause(), failure.step()),
            (Cause::BlobMissing, Step::Fetch)
        );
        assert!(failure.to_string().contains("BLOB_UNKNOWN"), "{failure}");
    }
    assert!(!repository.has_blob(&Digest::of(b"x")).await.unwrap());
}

#[tokio::test]
async fn a_signed_url_for_get_alone() {
    let content = content();
    let served = content.clone();
    let storage = Stub::plain(move |seen| {
        if seen.method == "HEAD" {
            return Reply::new(403).body("<Error><Code>SignatureDoesNotMatch</Code></Error>");
        }
        Reply::new(206)
            .header("Content-Range", &format!("bytes 0-0/{}", served.len()))
            .body(&served[..1])
    })
    .await;
    let location = format!("http://{}/b", storage.address());
    let stub = Stub::plain(move |_| Reply::new(307).header("Location", &location)).await;
    let head = stub
        .repository(Credential::Anonymous)
        .head_blob(&Digest::of(&content))
        .await
        .unwrap();
    assert_eq!(head.size, Some(content.len() as u64));
}

/// A network's own page in the place of a blob is no blob that went bad: whoever answers is no registry.
#[tokio::test]
async fn a_web_page_instead_of_a_blob_is_told_as_one() {
    let content = content();
    let descriptor = descriptor(&content);
    let page = "<!doctype html><title>Log in</title>";
    // As long as the blob, and without a type: only the digest tells, and then how it begins.
    let mut long = page.as_bytes().to_vec();
    long.resize(content.len(), b' ');
    for (what, reply) in [
        (
            "typed",
            Reply::new(200)
                .header("Content-Type", "text/html; charset=utf-8")
                .body(page.as_bytes()),
        ),
        ("not typed", Reply::new(200).body(page.as_bytes())),
        ("as long", Reply::new(200).body(&long)),
    ] {
        let stub = Stub::plain(move |_| reply.clone()).await;
        let repository = stub.repository(Credential::Anonymous);
        let failure = repository.blob_bytes(&descriptor, 1 << 20).await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.cause(), Cause::NotARegistry, "{what}: {failure}");
        assert!(failure.detail().contains("web page"), "{what}: {failure}");
        if what == "typed" {
            let failure = repository.head_blob(&descriptor.digest).await;
            assert_eq!(failure.unwrap_err().cause(), Cause::NotARegistry);
        }
    }
    // A blob may be a page, and its registry may say so.
    let page = Descriptor::of("text/html", page.as_bytes());
    let digest = page.digest.to_string();
    let stub = Stub::plain(move |_| {
        Reply::new(200)
            .header("Content-Type", "text/html")
            .header("Docker-Content-Digest", &digest)
            .body(b"<!doctype html><title>Log in</title>")
    })
    .await;
    let repository = stub.repository(Credential::Anonymous);
    let got = repository.blob_bytes(&page, 1 << 20).await.unwrap();
    assert_eq!(Digest::of(&got), page.digest);
}
