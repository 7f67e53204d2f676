//! Known holes of registries, tried on this one.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use towline_lab::image;
use towline_registry::access::{Access, Rule, Users, Who};

use crate::client::Registry;

#[tokio::test]
async fn cve_2023_2253_a_page_is_never_longer_than_the_registry_says() {
    let registry = Registry::with(|options| options.limits.page = 3).await;
    let image = image::guest().build();
    for name in ["a", "b", "c", "d", "e"] {
        let pushed = image.push(registry.address(), name, "v1", None).await;
        pushed.unwrap();
        let pushed = image.push(registry.address(), "a", name, None).await;
        pushed.unwrap();
    }
    for (path, list) in [
        ("/v2/_catalog", "repositories"),
        ("/v2/a/tags/list", "tags"),
    ] {
        for n in [
            "3",
            "4",
            "1000000000",
            "9223372036854775807",
            "18446744073709551615",
        ] {
            let answer = registry.get(&format!("{path}?n={n}")).await;
            assert_eq!(answer.status, 200, "{n}: {answer:?}");
            assert_eq!(answer.json()[list].as_array().unwrap().len(), 3, "{n}");
            let next = answer.header("link");
            assert!(next.contains("n=3&last="), "{n}: {next}");
        }
        for n in ["-1", "18446744073709551616", "1e9", "0x10", "x"] {
            let answer = registry.get(&format!("{path}?n={n}")).await;
            let refused = (answer.status.as_u16(), answer.code());
            assert_eq!(
                refused,
                (400, "PAGINATION_NUMBER_INVALID".to_owned()),
                "{n}"
            );
        }
    }
}

#[tokio::test]
async fn cve_2026_41888_where_nobody_may_delete_nothing_goes() {
    for who in [Who::Nobody, Who::Anyone] {
        let registry = Registry::with(|options| {
            options.access = Access {
                rules: vec![Rule {
                    repositories: "*".to_owned(),
                    pull: Who::Anyone,
                    push: Who::Anyone,
                    delete: who.clone(),
                }],
                users: Users::default(),
            };
        })
        .await;
        let image = image::guest().build();
        let pushed = image.push(registry.address(), "app", "v1", None).await;
        pushed.unwrap();
        // The digest comes last: it takes the tags along where it may.
        for path in [
            "/v2/app/manifests/v1".to_owned(),
            format!("/v2/app/blobs/{}", image.blobs[0].digest),
            format!("/v2/app/manifests/{}", image.digest()),
        ] {
            let deleted = registry.send("DELETE", &path, &[], "").await;
            let left = registry.get(&path).await.status.as_u16();
            let told = (deleted.status.as_u16(), left);
            let expected = if who == Who::Nobody {
                (403, 200)
            } else {
                (202, 404)
            };
            assert_eq!(told, expected, "{who:?}: DELETE {path}");
        }
    }
}

/// A client that sends a manifest as long as it is read; how many bytes went, and the beginning of the answer.
fn send_without_end(address: std::net::SocketAddr, length: &str) -> (usize, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: registry\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let spaces = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent < 1 << 30 {
        let mut piece = Vec::new();
        if length.starts_with("Transfer") {
            piece.extend(b"100000\r\n");
            piece.extend(&spaces);
            piece.extend(b"\r\n");
        } else {
            piece.extend(&spaces);
        }
        if stream.write_all(&piece).is_err() {
            break;
        }
        sent += spaces.len();
    }
    let mut answer = [0; 64];
    // Where the registry hung up on what came too late, the answer may be lost on the way.
    let read = stream.read(&mut answer).unwrap_or(0);
    (sent, String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2017_11468_a_manifest_without_end_is_read_to_the_bound_and_no_further() {
    let registry = Registry::open().await;
    for length in ["Transfer-Encoding: chunked", "Content-Length: 1073741824"] {
        let address = registry.address();
        let sending = tokio::task::spawn_blocking(move || send_without_end(address, length));
        let (sent, answer) = sending.await.unwrap();
        // What two sockets hold, and the bound of 4.2 MiB.
        assert!(sent < 64 << 20, "{length}: {sent} bytes were taken");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
            "{answer}"
        );
    }
    let tags = registry.get("/v2/a/tags/list").await;
    assert_eq!(tags.status, 404, "{tags:?}");
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// The registry's own key, as its owner finds it on the disk, and its name.
fn own_key(registry: &Registry) -> (Ed25519KeyPair, String) {
    let mut files = std::fs::read_dir(registry.folder.path().join("keys")).unwrap();
    let file = files.next().unwrap().unwrap().path();
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let document = STANDARD.decode(kept["pkcs8"].as_str().unwrap()).unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    (Ed25519KeyPair::from_pkcs8(&document).unwrap(), name)
}

/// The registry of tokens, with what it would sign.
struct Forger {
    registry: Registry,
    own: Ed25519KeyPair,
    header: Value,
    claims: Value,
    now: i64,
}

impl Forger {
    async fn new() -> Self {
        let registry = crate::tokens::registry().await;
        let (own, name) = own_key(&registry);
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": "towline-registry", "aud": "towline-registry", "sub": "ann", "iat": now, "nbf": now - 5, "exp": now + 300, "jti": "1",
            "access": [{"type": "repository", "name": "team/app", "actions": ["pull", "push", "delete"]}],
        });
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": name});
        Self {
            registry,
            own,
            header,
            claims,
            now,
        }
    }

    /// What a token gets: 404 where it is let in, since there is no such repository.
    async fn ask(&self, token: &str) -> u16 {
        let login = format!("Bearer {token}");
        let headers = [("authorization", login.as_str())];
        let path = "/v2/team/app/tags/list";
        let answer = self.registry.send("GET", path, &headers, "").await;
        answer.status.as_u16()
    }
}

fn with(value: &Value, field: &str, other: Value) -> Value {
    let mut changed = value.clone();
    changed[field] = other;
    changed
}

fn signed(key: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    token(header, claims, |text| key.sign(text).as_ref().to_vec())
}

/// A token is good by a key that the registry has, whatever the token says of keys.
#[tokio::test]
async fn cve_2025_24976_a_token_brings_no_key_along() {
    let forger = Forger::new().await;
    let (header, claims) = (&forger.header, &forger.claims);
    assert_eq!(forger.ask(&signed(&forger.own, header, claims)).await, 404);

    let stranger = Ed25519KeyPair::generate().unwrap();
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    place.set_nonblocking(true).unwrap();
    let url = json!(format!("http://{}/keys.json", place.local_addr().unwrap()));
    let public = stranger.public_key().as_ref();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "theirs", "x": URL_SAFE_NO_PAD.encode(public)});
    let certificate = json!([STANDARD.encode(public)]);
    let theirs = with(header, "kid", json!("theirs"));
    for (what, header) in [
        ("nothing more", header.clone()),
        ("a key", with(header, "jwk", jwk.clone())),
        ("a key under its name", with(&theirs, "jwk", jwk)),
        ("the place of a key", with(header, "jku", url.clone())),
        ("the place of its certificate", with(&theirs, "x5u", url)),
        ("a certificate", with(header, "x5c", certificate)),
        ("a path for a name", with(header, "kid", json!("../x"))),
    ] {
        let forged = signed(&stranger, &header, claims);
        assert_eq!(forger.ask(&forged).await, 401, "{what}");
    }
    assert!(place.accept().is_err(), "nobody is asked for keys");
}

#[tokio::test]
async fn cve_2025_24976_a_token_is_good_by_one_algorithm_for_this_registry_and_now() {
    let forger = Forger::new().await;
    let (own, header, claims) = (&forger.own, &forger.header, &forger.claims);
    let secret = hmac::Key::new(hmac::HMAC_SHA256, own.public_key().as_ref());
    for algorithm in ["none", "None", "HS256", "ES256", "EdDSA"] {
        let header = with(header, "alg", json!(algorithm));
        let unsigned = token(&header, claims, |_| Vec::new());
        assert_eq!(forger.ask(&unsigned).await, 401, "{algorithm}, unsigned");
        // With the public key as a secret.
        let keyed = token(&header, claims, |text| {
            hmac::sign(&secret, text).as_ref().to_vec()
        });
        assert_eq!(forger.ask(&keyed).await, 401, "{algorithm}, keyed");
        let expected = if algorithm == "EdDSA" { 404 } else { 401 };
        let well = signed(own, &header, claims);
        assert_eq!(forger.ask(&well).await, expected, "{algorithm}");
    }
    for (field, value) in [
        ("iss", json!("another-registry")),
        ("aud", json!("another-registry")),
        ("exp", json!(forger.now - 1)),
        ("nbf", json!(forger.now + 100)),
        ("exp", json!("never")),
        ("sub", json!("nobody-we-know")),
    ] {
        let forged = signed(own, header, &with(claims, field, value));
        assert_eq!(forger.ask(&forged).await, 401, "{field}");
    }
    let mut cut = signed(own, header, claims);
    cut.truncate(cut.len() - 4);
    assert_eq!(forger.ask(&cut).await, 401, "a cut signature");
}
