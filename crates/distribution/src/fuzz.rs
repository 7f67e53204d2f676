//! Fuzz targets of the readers: what almost makes sense never panics, and what they accept or refuse holds together. The corpus is in
//! `corpus/`; see `towline_lab::fuzz` for how they run.

use std::path::Path;

use http::{HeaderMap, HeaderValue, header};
use towline_lab::fuzz::Target;
use towline_oci::{Document, ImageConfig, Reference, media_type};

use crate::endpoint::{hosts, registries};

const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"\"",
    b"'",
    b"=",
    b",",
    b".",
    b"\n",
    b"\\",
    b"\0",
    b"{",
    b"}",
    b"-1",
    b"1e99",
    b"99999999999999999999",
    b"://",
    b"@",
    b"*.",
];
const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"-1",
    b"1e99",
    b"99999999999999999999",
    b"\\u0000",
    b"\xff",
    b"\"layers\":[]",
    b"\"manifests\":[]",
];
const HEADER: &[&[u8]] = &[
    b"Bearer ", b"Basic ", b"realm=", b"\"", b"\\", b",", b"=", b" ", b"\t", b"==", b"\xff",
    b"scope=",
];
const NAME: &[&[u8]] = &[
    b"/",
    b":",
    b"@",
    b"..",
    b"__",
    b"-",
    b".",
    b"[::1]",
    b"sha256:",
    b"\xc3\xa9",
    b"%2f",
    b" ",
    b"A",
];

fn target(name: &'static str, pieces: &'static [&'static [u8]]) -> Target {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    Target::new(name, &corpus.join(name), pieces)
}

/// Too little that is accepted tests too little; one input that is run again is what it is.
fn enough(accepted: u64, least: u64) {
    let again = std::env::var_os("TOWLINE_FUZZ_ROUND").is_some();
    assert!(
        again || accepted > least,
        "too little of it makes sense: {accepted}"
    );
}

#[test]
fn fuzz_reference() {
    let accepted = target("reference", NAME).run(3000, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(reference) = Reference::parse(&text) else {
            return false;
        };
        let again = Reference::parse(&reference.to_string());
        assert_eq!(
            again.map(|again| again.to_string()),
            Ok(reference.to_string())
        );
        assert!(!reference.repository().contains(".."));
        true
    });
    enough(accepted, 100);
}

#[test]
fn fuzz_document() {
    let accepted = target("document", JSON).run(3000, |input| {
        let kinds = [media_type::OCI_INDEX, media_type::OCI_MANIFEST];
        let read = kinds.map(|kind| Document::parse(kind, input).is_ok());
        // One byte string has one meaning.
        assert!(read != [true, true]);
        drop(ImageConfig::parse(input));
        read.contains(&true)
    });
    enough(accepted, 20);
}

#[test]
fn fuzz_challenge() {
    let accepted = target("challenge", HEADER).run(3000, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return false;
        };
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, value);
        let read = crate::challenge::read(&headers);
        for challenge in &read {
            assert!(!challenge.scheme.contains([' ', ',', '"']));
        }
        !read.is_empty()
    });
    enough(accepted, 100);
}

#[test]
fn fuzz_hosts() {
    let path = Path::new("f");
    let accepted = target("hosts", TOML).run(3000, |input| {
        let text = String::from_utf8_lossy(input);
        match hosts::parse(path, &text) {
            Ok(_) => true,
            Err(error) => {
                let lines = text.matches('\n').count() + 1;
                assert!((1..=lines).contains(&error.line), "{error}");
                assert!(error.column >= 1, "{error}");
                false
            }
        }
    });
    enough(accepted, 20);
}

#[test]
fn fuzz_registries() {
    let path = Path::new("f");
    let accepted = target("registries", TOML).run(2000, |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(found) = registries::parse(path, &text) else {
            return false;
        };
        if let Some((registry, length)) = registries::choose(&found, "a.corp/b:1") {
            // May be no name any more: then it is an error with its place, never a panic.
            registries::rewrite("a.corp/b:1", length, &registry.location);
        }
        true
    });
    enough(accepted, 20);
}
