//! Web pages in the place of what was asked for: of a network that wants a login, of a proxy, of a web server that is no registry.

use http::HeaderMap;
use http::header;
use towline_oci::Digest;

/// Bytes that tell whether something is a page.
pub(crate) const ENOUGH: usize = 256;

/// Whether what begins with these bytes is a web page, as far as bytes tell.
pub fn is_web_page(start: &[u8]) -> bool {
    let start = &start[..start.len().min(ENOUGH)];
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    !text.starts_with(['{', '[']) && (text.starts_with("<!doctype html") || text.contains("<html"))
}

/// Whether an answer calls itself a web page. One that names the digest that was asked for is a registry's all the same: blobs may be
/// pages, and some registries serve each blob under its own type.
pub(crate) fn says_page(headers: &HeaderMap, wanted: &Digest) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = kind.trim_start().to_ascii_lowercase();
    let is_page = kind.starts_with("text/html") || kind.starts_with("application/xhtml");
    let named = text("docker-content-digest").and_then(|text| Digest::parse(text).ok());
    is_page && named.as_ref() != Some(wanted)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn pages_are_told_by_how_they_begin() {
        for (start, expected) in [
            ("<!DOCTYPE html><p>", true),
            ("\u{feff}\n <HTML lang=en>", true),
            ("<?xml version=\"1.0\"?>\n<html xmlns=\"x\">", true),
            ("<!-- portal --><html>", true),
            ("<?xml version=\"1.0\"?><Error>", false),
            ("{\"annotations\":{\"a\":\"<html>\"}}", false),
            ("", false),
            ("\u{1f}\u{8b}\u{8}", false),
        ] {
            assert_eq!(is_web_page(start.as_bytes()), expected, "{start:?}");
        }
        let late = format!("<{}html", " ".repeat(ENOUGH));
        assert!(!is_web_page(late.as_bytes()));
    }

    #[test]
    fn an_answer_that_names_the_digest_is_no_page_in_its_place() {
        let (wanted, other) = (Digest::of(b"x"), Digest::of(b"y"));
        for (kind, named, expected) in [
            ("text/html; charset=utf-8", None, true),
            ("Text/HTML", Some(&other), true),
            ("text/html", Some(&wanted), false),
            ("application/octet-stream", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(named) = named {
                let named = HeaderValue::from_str(&named.to_string()).unwrap();
                headers.insert("docker-content-digest", named);
            }
            assert_eq!(says_page(&headers, &wanted), expected, "{kind} {named:?}");
        }
    }
}
