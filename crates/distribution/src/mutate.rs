//! Readers against texts that almost make sense: a corpus, changed at random but the same way each time. `TOWLINE_FUZZ_SECONDS` lets it
//! run longer, with another seed each time.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use towline_oci::{Document, Reference, media_type};

use crate::endpoint::{hosts, registries};

const HOSTS: [&str; 2] = [
    "server = \"https://r.corp\"\n[host.\"http://m:5000/v2/x\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = [\"a.pem\"]\n  \
     client = [[\"c\", \"k\"]]\n  override_path = true\n  dial_timeout = \"1m3s\"\n  [host.\"http://m:5000/v2/x\".header]\n    x = [\"1\"]\n",
    "skip_verify = true\n[host.\"m\"]\n[host.\"[::1]:5000\"]\n",
];
const REGISTRIES: [&str; 1] = [
    "unqualified-search-registries = [\"a\"]\n[[registry]]\nprefix = \"*.corp\"\nlocation = \"c.corp/x\"\ninsecure = true\n\
     [[registry.mirror]]\nlocation = \"m:5000\"\npull-from-mirror = \"digest-only\"\n[aliases]\nx = \"y/x\"\n",
];
const CHALLENGES: [&str; 2] = [
    "Bearer realm=\"https://t/token?a=b\",service=\"s \\\" x\",scope=\"repository:a/b:pull\", Basic realm=x",
    "Negotiate abc==, Digest qop=\"auth,auth-int\", nonce=1 , Bearer realm=https://t",
];
const NAMES: [&str; 3] = [
    "nginx",
    "r.corp:5000/a/b_c--d:1.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "[::1]:5000/a",
];
const DOCUMENTS: [&str; 2] = [
    "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[{\"mediaType\":\
     \"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\
     \"size\":7,\"platform\":{\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\"}}]}",
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"x\",\"digest\":\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\",\
     \"size\":1},\"layers\":[],\"annotations\":{\"a\":\"b\"}}",
];
const PIECES: [&str; 22] = [
    "[",
    "]",
    "[[",
    "\"",
    "'",
    "=",
    ",",
    ".",
    "\n",
    "\\",
    "\u{0}",
    "é",
    "{",
    "}",
    ":",
    "://",
    "@",
    "-1",
    "1e99",
    "99999999999999999999",
    "null",
    " ",
];

fn changed(random: &mut fastrand::Rng, corpus: &[&str]) -> String {
    let mut text: Vec<char> = random.choice(corpus).unwrap_or(&"").chars().collect();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=text.len());
        let end = (at + random.usize(0..12)).min(text.len());
        let piece: Vec<char> = match random.u8(0..4) {
            0 => Vec::new(),
            1 => random.choice(PIECES).unwrap_or("").chars().collect(),
            2 => vec![random.char(..)],
            _ => {
                let other: Vec<char> = random.choice(corpus).unwrap_or(&"").chars().collect();
                let from = random.usize(0..other.len());
                other[from..]
                    .iter()
                    .take(random.usize(1..40))
                    .copied()
                    .collect()
            }
        };
        text.splice(at..end, piece);
    }
    text.into_iter().collect()
}

/// One round: every reader gets one text. None panics, and what they accept or refuse holds together.
fn round(random: &mut fastrand::Rng) -> u32 {
    let path = Path::new("f");
    let mut read = 0;
    let text = changed(random, &HOSTS);
    match hosts::parse(path, &text) {
        Ok(_) => read += 1,
        Err(error) => {
            assert!(
                error.line >= 1 && error.line <= text.matches('\n').count() + 1,
                "{text:?} {error}"
            );
            assert!(error.column >= 1, "{text:?} {error}");
        }
    }
    let text = changed(random, &REGISTRIES);
    if let Ok(found) = registries::parse(path, &text) {
        read += 1;
        if let Some((registry, length)) = registries::choose(&found, "a.corp/b:1") {
            // May be no name any more: then it is an error with its place, never a panic.
            registries::rewrite("a.corp/b:1", length, &registry.location);
        }
    }
    let text = changed(random, &CHALLENGES);
    if let Ok(value) = HeaderValue::from_str(&text) {
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, value);
        read += u32::from(!crate::challenge::read(&headers).is_empty());
    }
    let text = changed(random, &NAMES);
    if let Ok(reference) = Reference::parse(&text) {
        read += 1;
        assert_eq!(
            Reference::parse(&reference.to_string())
                .as_ref()
                .map(ToString::to_string),
            Ok(reference.to_string()),
            "{text:?}"
        );
    }
    let text = changed(random, &DOCUMENTS);
    for kind in [media_type::OCI_INDEX, media_type::OCI_MANIFEST] {
        read += u32::from(Document::parse(kind, text.as_bytes()).is_ok());
    }
    read
}

#[test]
fn readers_survive_what_almost_makes_sense() {
    let seconds = std::env::var("TOWLINE_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut random = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for _ in 0..3000 {
        read += round(&mut random);
    }
    assert!(read > 500, "too little of it makes sense: {read}");
    if let Some(seconds) = seconds {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            round(&mut random);
        }
    }
}
