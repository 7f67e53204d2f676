//! The list of what registries do wrong, row by row, where no other file has the row: tokens, redirects, manifests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use towline_cause::{Cause, Step};
use towline_keyring::Credential;
use towline_oci::{Descriptor, Digest, media_type};

use crate::stub::{Reply, Stub, bob, manifest, manifest_reply, words};

const BLOB: &[u8] = b"twelve bytes";

fn challenge(realm: &str, scope: &str) -> Reply {
    Reply::new(401).header(
        "WWW-Authenticate",
        &format!("Bearer realm=\"{realm}\",service=\"lab\",scope=\"{scope}\""),
    )
}

/// A14: tokens that live one second, and many blobs: each request gets a token that is good.
#[tokio::test]
async fn tokens_that_run_out_at_once() {
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = issued.clone();
    let service = Stub::plain(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200).json(&format!("{{\"token\":\"t{number}\",\"expires_in\":1}}"))
    })
    .await;
    let realm = format!("http://{}/token", service.address());
    let uses = AtomicUsize::new(0);
    let latest = issued.clone();
    // Each token is good for two requests, whatever was said of its life.
    let own = Stub::plain(move |seen| {
        let valid = format!("Bearer t{}", latest.load(Ordering::SeqCst));
        let given = seen.header("authorization") == Some(valid.as_str());
        if given && uses.fetch_add(1, Ordering::SeqCst) % 3 != 2 {
            Reply::new(200).body(BLOB)
        } else {
            challenge(&realm, "repository:team/app:pull")
        }
    })
    .await;
    let repository = own.repository(bob());
    let layer = Descriptor::of(media_type::OCI_LAYER, BLOB);
    for _ in 0..12 {
        assert_eq!(repository.blob_bytes(&layer, 100).await.unwrap(), BLOB);
    }
    assert!(issued.load(Ordering::SeqCst) > 3);
}

/// A16: the service gave a token and then gives none: its no is the failure, and the registry is not blamed.
#[tokio::test]
async fn a_token_service_that_changes_its_mind() {
    let service = Stub::plain(|seen| {
        if seen.number == 1 {
            Reply::new(200).json("{\"token\":\"t1\"}")
        } else {
            Reply::error(401, "UNAUTHORIZED", "password expired")
        }
    })
    .await;
    let realm = format!("http://{}/token", service.address());
    let bytes = manifest(BLOB);
    let own = Stub::plain(move |seen| {
        if seen.header("authorization").is_some() && seen.path().contains("/manifests/") {
            manifest_reply(&bytes)
        } else {
            challenge(&realm, "repository:team/app:pull")
        }
    })
    .await;
    let repository = own.repository(bob());
    repository.resolve().await.unwrap();
    let layer = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let failure = repository.blob_bytes(&layer, 100).await.unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::ExpiredCredentials, Step::Authenticate),
        "{}",
        words(&failure)
    );
    let realm = format!("http://{}", service.address());
    assert_eq!(failure.endpoint(), Some(realm.as_str()));
    for part in ["as user bob", "was answered 401", "password expired"] {
        assert!(failure.detail().contains(part), "{failure}");
    }
}

/// A20: a token for less than was asked: one more scope is tried, then it is a no.
#[tokio::test]
async fn a_token_for_less_than_was_asked() {
    let service = Stub::plain(|_| Reply::new(200).json("{\"token\":\"narrow\"}")).await;
    let realm = format!("http://{}/token", service.address());
    let own = Stub::plain(move |seen| {
        let reply = Reply::error(401, "UNAUTHORIZED", "authentication required");
        let error = seen
            .header("authorization")
            .map_or("", |_| ",error=\"insufficient_scope\"");
        reply.header(
            "WWW-Authenticate",
            &format!(
                "Bearer realm=\"{realm}\",service=\"lab\",scope=\"repository:team/app:pull\"{error}"
            ),
        )
    })
    .await;
    let failure = own.repository(bob()).resolve().await.unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::InsufficientPermission, Step::Authenticate)
    );
    assert_eq!(failure.alternatives(), [Cause::RepositoryNotFound]);
    assert!(own.seen().len() <= 3, "{:?}", own.asked());
}

/// A24: storage that answers 400 to any login gets none. A25: a signed URL that ran out is asked for anew, from where the blob stands.
#[tokio::test]
async fn a_signed_url_that_runs_out_mid_blob() {
    let storage = Stub::plain(|seen| {
        if seen.header("authorization").is_some() {
            return Reply::new(400).body("Only one auth mechanism allowed");
        }
        match (seen.target.as_str(), seen.header("range")) {
            ("/x?sig=canary1", None) => Reply::new(200).body(&BLOB[..5]).cut(BLOB.len()),
            ("/x?sig=canary2", Some("bytes=5-11")) => Reply::new(206)
                .header("Content-Range", "bytes 5-11/12")
                .body(&BLOB[5..]),
            _ => Reply::new(403).body(
                "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
            ),
        }
    })
    .await;
    let place = storage.address();
    let counter = AtomicUsize::new(0);
    let own = Stub::plain(move |seen| {
        if seen.header("authorization").is_none() {
            return Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(307).header("Location", &format!("http://{place}/x?sig=canary{number}"))
    })
    .await;
    let layer = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let got = own.repository(bob()).blob_bytes(&layer, 100).await.unwrap();
    assert_eq!(got, BLOB);
    assert_eq!(storage.seen().len(), 2, "each signed URL is used once");
}

/// A46, A52, A54, A55: what is unusual and right: a large index, no digest header, no length, chunks.
#[tokio::test]
async fn unusual_and_right() {
    let config = Descriptor::of(media_type::OCI_MANIFEST, b"{}");
    let entry = format!(
        "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":2}}",
        media_type::OCI_MANIFEST,
        config.digest
    );
    let entries = vec![entry; 10_000].join(",");
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"manifests\":[{entries}]}}",
        media_type::OCI_INDEX
    );
    let large = index.clone();
    let own = Stub::plain(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_INDEX)
            .body(&large)
    })
    .await;
    // No Docker-Content-Digest: the digest is that of the bytes, not anybody's claim.
    let resolved = own
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    assert_eq!(resolved.digest, Digest::of(index.as_bytes()));

    let bytes = manifest(BLOB);
    let mut raw = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        media_type::OCI_MANIFEST
    )
    .into_bytes();
    for piece in bytes.chunks(7) {
        raw.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        raw.extend_from_slice(piece);
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"0\r\n\r\n");
    let chunked = Stub::plain(move |_| Reply::raw(&raw)).await;
    let resolved = chunked
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    assert_eq!(resolved.digest, Digest::of(&bytes));

    let to_the_end = manifest(BLOB);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n",
        media_type::OCI_MANIFEST
    );
    let raw = [head.as_bytes(), &to_the_end].concat();
    let no_length = Stub::plain(move |_| Reply::raw(&raw)).await;
    let resolved = no_length
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    assert_eq!(resolved.digest, Digest::of(&to_the_end));
}

/// A51: a registry's warning is kept for whoever reads the answer.
#[tokio::test]
async fn a_warning_is_kept() {
    let bytes = manifest(BLOB);
    let own =
        Stub::plain(move |_| manifest_reply(&bytes).header("Warning", "299 - \"going away\""))
            .await;
    let resolved = own
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    let warning = resolved.headers.iter().find(|(name, _)| name == "warning");
    assert_eq!(
        warning.map(|(_, value)| value.as_str()),
        Some("299 - \"going away\"")
    );
}
