//! What a request asks for, read from its method, path and query.

use http::{Method, StatusCode, Uri};
use towline_oci::Digest;
use uuid::Uuid;

use crate::names::{NameError, Repository, Tag};
use crate::refusal::{Refusal, bad, missing};

/// What is asked for, of which repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Is this a registry?
    Ping,
    /// The repositories.
    Catalog,
    /// Something of one repository.
    In(Repository, Thing),
}

/// A thing of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A blob.
    Blob(Digest),
    /// A new upload.
    NewUpload,
    /// An open upload.
    Upload(Uuid),
    /// A manifest.
    Manifest(ManifestName),
    /// The tags.
    Tags,
    /// What refers to a manifest.
    Referrers(Digest),
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestName {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
    /// By what cannot be a tag: nothing has this name, and nothing can get it.
    Impossible(NameError),
}

/// What a request does to a repository, for the access rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Reads.
    Pull,
    /// Adds.
    Push,
    /// Removes.
    Delete,
}

impl Action {
    /// Each of them.
    pub(crate) const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// Its name in the scopes of tokens.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The action of a method on a thing: asking for, or giving up, an upload is part of a push.
    pub(crate) fn of(method: &Method, thing: &Thing) -> Self {
        match (method, thing) {
            (_, Thing::NewUpload | Thing::Upload(_)) => Self::Push,
            (&Method::GET | &Method::HEAD, _) => Self::Pull,
            (&Method::DELETE, _) => Self::Delete,
            _ => Self::Push,
        }
    }
}

/// Reads a path below `/v2/`.
pub(crate) fn read(uri: &Uri) -> Result<Route, Refusal> {
    let path = percent_decoded(uri.path())
        .ok_or_else(|| bad("NAME_INVALID", "the path is not valid UTF-8"))?;
    let nowhere = || {
        missing(
            "UNSUPPORTED",
            "there is nothing at this path; the API is below /v2/",
        )
    };
    if path == "/v2" || path == "/v2/" {
        return Ok(Route::Ping);
    }
    let rest = path.strip_prefix("/v2/").ok_or_else(nowhere)?;
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let (name, thing) = match parts.as_slice() {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            (name, Thing::NewUpload)
        }
        [name @ .., "blobs", "uploads", id] => (name, Thing::Upload(upload(id)?)),
        [name @ .., "blobs", id] => (name, Thing::Blob(digest(id)?)),
        [name @ .., "manifests", reference] => (name, Thing::Manifest(manifest(reference)?)),
        [name @ .., "tags", "list"] => (name, Thing::Tags),
        [name @ .., "referrers", id] => (name, Thing::Referrers(digest(id)?)),
        _ => return Err(nowhere()),
    };
    let name = Repository::parse(&name.join("/"))
        .map_err(|error| bad("NAME_INVALID", error.to_string()))?;
    Ok(Route::In(name, thing))
}

/// The fields of a form, decoded: `+` is a space there.
pub(crate) fn form(text: &str) -> Vec<(String, String)> {
    let read = |field: &str| {
        let (name, value) = field.split_once('=')?;
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        Some((decoded(name)?, decoded(value)?))
    };
    text.split('&').filter_map(read).collect()
}

/// The values of a field of the query, percent-decoded.
pub(crate) fn query(uri: &Uri, name: &str) -> Vec<String> {
    let fields = uri.query().unwrap_or_default().split('&');
    let fields = fields.filter_map(|field| field.split_once('=').filter(|(key, _)| *key == name));
    fields
        .filter_map(|(_, value)| percent_decoded(value))
        .collect()
}

/// A value for a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

/// Reads a digest of a path or query.
pub(crate) fn digest(text: &str) -> Result<Digest, Refusal> {
    Digest::parse(text).map_err(|error| bad("DIGEST_INVALID", error.to_string()))
}

fn manifest(text: &str) -> Result<ManifestName, Refusal> {
    if text.contains(':') {
        return Ok(ManifestName::Digest(digest(text)?));
    }
    Ok(Tag::parse(text).map_or_else(ManifestName::Impossible, ManifestName::Tag))
}

fn upload(text: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(text).map_err(|_| missing("BLOB_UPLOAD_UNKNOWN", "there is no such upload"))
}

/// The answer to a method that a thing does not have.
pub(crate) fn no_such_method(allowed: &'static str) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "UNSUPPORTED",
        "the method is not supported here",
    )
    .header(http::header::ALLOW, allowed)
}

pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Result<Route, (u16, &'static str)> {
        read(&path.parse().unwrap()).map_err(|refusal| (refusal.status.as_u16(), refusal.code))
    }

    #[test]
    fn paths_are_read_from_the_end() {
        let digest = Digest::of(b"");
        let name = |text| Repository::parse(text).unwrap();
        assert_eq!(route("/v2/"), Ok(Route::Ping));
        let blob = Thing::Blob(digest.clone());
        assert_eq!(
            route(&format!("/v2/a/b/blobs/{digest}")),
            Ok(Route::In(name("a/b"), blob.clone()))
        );
        let encoded = digest.to_string().replace(':', "%3A");
        assert_eq!(
            route(&format!("/v2/a/blobs/blobs/{encoded}")),
            Ok(Route::In(name("a/blobs"), blob))
        );
        assert_eq!(
            route("/v2/a/blobs/uploads/"),
            Ok(Route::In(name("a"), Thing::NewUpload))
        );
        assert_eq!(
            route("/v2/a/blobs/uploads"),
            Ok(Route::In(name("a"), Thing::NewUpload))
        );
        assert_eq!(
            route("/v2/tags/list/tags/list"),
            Ok(Route::In(name("tags/list"), Thing::Tags))
        );
        let tag = ManifestName::Tag(Tag::parse("v1").unwrap());
        assert_eq!(
            route("/v2/a/manifests/v1"),
            Ok(Route::In(name("a"), Thing::Manifest(tag)))
        );
    }

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(encoded("a b&c=\"<é"), "a%20b%26c%3d%22%3c%c3%a9");
        let uri = format!("/v2/?last={}", encoded("a b&c=\"<é"));
        assert_eq!(query(&uri.parse().unwrap(), "last"), ["a b&c=\"<é"]);
    }

    #[test]
    fn what_cannot_be_a_tag_is_a_name_that_nothing_has() {
        for path in ["/v2/a/manifests/..", "/v2/a/manifests/.INVALID"] {
            let read = route(path);
            assert!(
                matches!(
                    read,
                    Ok(Route::In(_, Thing::Manifest(ManifestName::Impossible(_))))
                ),
                "{path}: {read:?}"
            );
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for (path, expected) in [
            ("/v2/../etc/manifests/v1", (400, "NAME_INVALID")),
            ("/v2/a/%2e%2e/b/manifests/v1", (400, "NAME_INVALID")),
            ("/v2/a%2f..%2fb/tags/list", (400, "NAME_INVALID")),
            ("/v2//tags/list", (400, "NAME_INVALID")),
            ("/v2/tags/list", (400, "NAME_INVALID")),
            ("/v2/a/blobs/sha256:short", (400, "DIGEST_INVALID")),
            ("/v2/a/blobs/uploads/no-uuid", (404, "BLOB_UPLOAD_UNKNOWN")),
            ("/v2/a/unknown/x", (404, "UNSUPPORTED")),
            ("/other", (404, "UNSUPPORTED")),
            ("/v2/a%ff/tags/list", (400, "NAME_INVALID")),
            ("/v2/a%00/tags/list", (400, "NAME_INVALID")),
        ] {
            assert_eq!(route(path), Err(expected), "{path}");
        }
    }
}
