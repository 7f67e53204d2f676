//! Manifests and indexes: one strict reader for both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_as_default;
use crate::{Descriptor, Platform, media_type};

/// The largest manifest or index that is read: what containerd reads, a little over 4 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 4_393_216;
/// The most descriptors that one document may hold.
const MAX_DESCRIPTORS: usize = 20_000;

/// An image manifest (or an artifact's).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type as the document itself names it; empty where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// Layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What this refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form facts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An index: manifests by platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type as the document itself names it; empty where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// What this refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form facts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads one that was kept without its media type, OCI's or Docker's; `None` for anything else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST]
            .into_iter()
            .find_map(|media_type| match Document::parse(media_type, bytes) {
                Ok(Document::Manifest(manifest)) => Some(manifest),
                _ => None,
            })
    }
}

impl Index {
    /// The entry that a node of this platform runs: the first that matches and is not an attestation.
    ///
    /// An entry without a platform counts only where no entry names one.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let named = self
            .manifests
            .iter()
            .filter_map(|entry| Some((entry.platform.as_ref()?, entry)));
        let mut named = named
            .filter(|(offered, _)| !offered.is_unknown())
            .peekable();
        if named.peek().is_none() {
            return self.manifests.iter().find(|entry| entry.platform.is_none());
        }
        let matching: Vec<_> = named
            .filter(|(offered, _)| platform.matches(offered))
            .collect();
        let exact = matching
            .iter()
            .find(|(offered, _)| offered.variant == platform.variant);
        exact.or_else(|| matching.first()).map(|(_, entry)| *entry)
    }

    /// The platforms that are offered, in order, without attestations and doubles.
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms = Vec::new();
        for platform in self
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
        {
            if !platform.is_unknown() && !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        platforms
    }
}

/// A manifest or an index.
#[expect(clippy::large_enum_variant, reason = "few exist at once")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image or artifact.
    Manifest(Manifest),
    /// Manifests by platform.
    Index(Index),
}

/// Why bytes are not a manifest or an index that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Over [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {0} bytes, more than the {MAX_DOCUMENT_BYTES} that are read")]
    TooLarge(usize),
    /// Docker schema 1.
    #[error("a Docker schema 1 manifest ({0}) is not read any more")]
    Schema1(String),
    /// Neither a manifest's nor an index's media type.
    #[error("media type {0:?} is neither an image manifest nor an index")]
    MediaType(String),
    /// The document names another media type than the server did.
    #[error("the server says {served:?}, the document says {written:?}")]
    Disagreement {
        /// From the Content-Type header.
        served: String,
        /// From the document.
        written: String,
    },
    /// Both a manifest's and an index's fields: such bytes mean two things under two media types.
    #[error("the document has the fields of a manifest and of an index at once")]
    Confused,
    /// Too many entries.
    #[error("the document lists {0} entries, more than {MAX_DESCRIPTORS}")]
    TooMany(usize),
    /// Not schema version 2.
    #[error("schemaVersion is {0}, not 2")]
    SchemaVersion(u32),
    /// Not JSON of this shape.
    #[error("not a well-formed document")]
    Json(#[from] serde_json::Error),
}

/// What kind the fields of a document make it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document that was served with this `Content-Type` (parameters are ignored).
    ///
    /// Refuses what could be read in two ways (CVE-2021-41190): fields of both kinds, a media type that disagrees with the
    /// server's, doubled keys.
    pub fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let served = media_type::essence(content_type);
        if media_type::is_schema1(&served) {
            return Err(DocumentError::Schema1(served));
        }
        if !media_type::is_manifest(&served) && !media_type::is_index(&served) {
            return Err(DocumentError::MediaType(served));
        }
        let shape: Shape = serde_json::from_slice(bytes)?;
        check_shape(&shape, &served)?;
        if media_type::is_index(&served) {
            let index: Index = serde_json::from_slice(bytes)?;
            bounded(index.manifests.len())?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        bounded(manifest.layers.len())?;
        Ok(Self::Manifest(manifest))
    }
}

fn check_shape(shape: &Shape, served: &str) -> Result<(), DocumentError> {
    if shape.schema_version == 1 || shape.fs_layers.is_some() {
        return Err(DocumentError::Schema1(served.to_owned()));
    }
    if shape.schema_version != 2 {
        return Err(DocumentError::SchemaVersion(shape.schema_version));
    }
    let (index, image) = (
        shape.manifests.is_some(),
        shape.layers.is_some() || shape.config.is_some(),
    );
    // Also the fields of the other kind alone: an image served as an index would be an index of nothing.
    let other_kind = if media_type::is_index(served) {
        image
    } else {
        index
    };
    if other_kind || (index && image) {
        return Err(DocumentError::Confused);
    }
    match &shape.media_type {
        Some(written) if !written.is_empty() && written != served => {
            Err(DocumentError::Disagreement {
                served: served.to_owned(),
                written: written.chars().take(128).collect(),
            })
        }
        _ => Ok(()),
    }
}

fn bounded(entries: usize) -> Result<(), DocumentError> {
    if entries > MAX_DESCRIPTORS {
        Err(DocumentError::TooMany(entries))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn entry(platform: &str) -> String {
        let (os, arch) = platform.split_once('/').unwrap();
        format!(
            r#"{{"mediaType":"{}","digest":"{D}","size":2,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
            media_type::OCI_MANIFEST
        )
    }

    fn index(entries: &[String]) -> Index {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        );
        match Document::parse(media_type::OCI_INDEX, text.as_bytes()).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("not an index"),
        }
    }

    #[test]
    fn the_platform_is_chosen_and_attestations_are_not() {
        let index = index(&[
            entry("unknown/unknown"),
            entry("linux/arm64"),
            entry("linux/amd64"),
        ]);
        let chosen = index.select(&Platform::new("linux", "amd64")).unwrap();
        assert_eq!(chosen.platform.as_ref().unwrap().architecture, "amd64");
        assert!(index.select(&Platform::new("linux", "s390x")).is_none());
        assert_eq!(index.platforms().len(), 2);
    }

    #[test]
    fn documents_with_two_meanings_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"config":{{"digest":"{D}","size":0}},"layers":[]}}"#
        );
        let twice = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":0}},"layers":[],"layers":[]}}"#
        );
        let other = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"digest":"{D}","size":0}},"layers":[]}}"#,
            media_type::OCI_INDEX
        );
        for kind in [media_type::OCI_MANIFEST, media_type::OCI_INDEX] {
            assert!(
                matches!(
                    Document::parse(kind, both.as_bytes()),
                    Err(DocumentError::Confused)
                ),
                "{kind}"
            );
        }
        assert!(matches!(
            Document::parse(media_type::OCI_MANIFEST, twice.as_bytes()),
            Err(DocumentError::Json(_))
        ));
        let disagrees = Document::parse(media_type::OCI_MANIFEST, other.as_bytes());
        assert!(matches!(disagrees, Err(DocumentError::Disagreement { .. })));
    }

    #[test]
    fn other_things_are_named_for_what_they_are() {
        assert!(matches!(
            Document::parse("text/html", b"<html>"),
            Err(DocumentError::MediaType(_))
        ));
        let schema1 = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(
            Document::parse(media_type::DOCKER_MANIFEST, schema1),
            Err(DocumentError::Schema1(_))
        ));
        let deep = "[".repeat(100_000);
        assert!(matches!(
            Document::parse(media_type::OCI_INDEX, deep.as_bytes()),
            Err(DocumentError::Json(_))
        ));
        let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        assert!(matches!(
            Document::parse(media_type::OCI_INDEX, &large),
            Err(DocumentError::TooLarge(_))
        ));
    }
}
