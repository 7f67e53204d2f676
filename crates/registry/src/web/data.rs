//! What the pages show, read from the storage. Every page has a budget of documents that it reads.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::Value;
use towline_oci::{Descriptor, Digest, Document, Platform, media_type};

use crate::handlers::{Held, Registry, unknown_manifest};
use crate::names::{Repository, Tag};
use crate::refusal::Refusal;
use crate::route::ManifestName;

/// Lines of one page.
pub(super) const LINES: usize = 50;
/// Documents that are read for one page.
const BUDGET: usize = 300;
/// The largest config that is read, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;
/// Layers, platforms, referrers and annotations that one page shows.
pub(super) const SHOWN: usize = 500;

/// A part of a sorted list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice<T> {
    pub(super) lines: Vec<T>,
    /// All that fit the filter.
    pub(super) total: usize,
    /// Whether lines come before these.
    pub(super) has_before: bool,
    /// After which the next part begins, if there is one.
    pub(super) next: Option<String>,
}

/// Cuts the lines after `after` that hold `filter` out of a sorted list.
pub(super) fn cut(sorted: Vec<String>, filter: &str, after: &str) -> Slice<String> {
    let mut all: Vec<_> = sorted;
    all.retain(|name| name.contains(filter));
    let total = all.len();
    let skipped = all.partition_point(|name| name.as_str() <= after);
    let mut lines: Vec<_> = all.drain(skipped..).collect();
    let more = lines.len() > LINES;
    lines.truncate(LINES);
    Slice {
        next: lines.last().filter(|_| more).cloned(),
        lines,
        total,
        has_before: skipped > 0,
    }
}

impl<T> Slice<T> {
    /// The same part with more said of each line.
    pub(super) fn try_map<U, E>(self, say: impl FnMut(T) -> Result<U, E>) -> Result<Slice<U>, E> {
        Ok(Slice {
            lines: self.lines.into_iter().map(say).collect::<Result<_, _>>()?,
            total: self.total,
            has_before: self.has_before,
            next: self.next,
        })
    }
}

/// What a tag names, in one line.
#[derive(Debug)]
pub(super) struct TagLine {
    pub(super) tag: String,
    /// None where the manifest is gone.
    pub(super) digest: Option<Digest>,
    pub(super) kind: &'static str,
    pub(super) platforms: Vec<String>,
    /// Bytes of all that it names; none where not all of it is here.
    pub(super) size: Option<u64>,
}

/// A layer, or another part of a manifest.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) descriptor: Descriptor,
    /// The step that made it, by the image's history.
    pub(super) by: Option<String>,
}

/// A manifest among the platforms of an index.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) descriptor: Descriptor,
    /// Bytes of all that it names; none where it is not here.
    pub(super) size: Option<u64>,
}

/// Everything that is said of a manifest.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) kind: &'static str,
    pub(super) artifact_type: Option<String>,
    pub(super) bytes: u64,
    pub(super) size: Option<u64>,
    pub(super) tags: Vec<String>,
    pub(super) subject: Option<Descriptor>,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) layers: Vec<Part>,
    pub(super) children: Vec<Child>,
    /// Facts of the image's config.
    pub(super) config: Vec<(&'static str, String)>,
    pub(super) referrers: Vec<Value>,
    /// Indexes of the repository that name it.
    pub(super) indexes: Vec<Digest>,
    /// Whether the budget ended before everything was looked at.
    pub(super) is_cut: bool,
}

/// Reads documents of one repository within the budget.
pub(super) struct Reader<'a> {
    registry: &'a Registry,
    name: &'a Repository,
    left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(registry: &'a Registry, name: &'a Repository) -> Self {
        Self {
            registry,
            name,
            left: BUDGET,
        }
    }

    fn spend(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn document(&mut self, digest: &Digest) -> Result<Option<(Held, Document)>, Refusal> {
        if !self.spend() {
            return Ok(None);
        }
        let which = ManifestName::Digest(digest.clone());
        let Some(held) = self.registry.find_manifest(self.name, &which)? else {
            return Ok(None);
        };
        let document = Document::parse(&held.media_type, &held.bytes).ok();
        Ok(document.map(|document| (held, document)))
    }

    /// A config as JSON, if the manifest has one that says something.
    fn config(&mut self, descriptor: &Descriptor) -> Result<Option<Value>, Refusal> {
        let known = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
        if !known.contains(&descriptor.media_type.as_str())
            || descriptor.size > CONFIG_LIMIT
            || !self.spend()
        {
            return Ok(None);
        }
        let registry = self.registry;
        if !registry.metadata.has_blob(self.name, &descriptor.digest)? {
            return Ok(None);
        }
        let Some((file, _)) = registry.blobs.open(&descriptor.digest)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(CONFIG_LIMIT).read_to_end(&mut bytes);
        Ok(read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()))
    }

    /// Bytes of all that a document names.
    fn size(&mut self, document: &Document) -> Result<Option<u64>, Refusal> {
        match document {
            Document::Manifest(manifest) => {
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                let sizes = parts.map(|part| part.size);
                Ok(Some(sizes.fold(0, u64::saturating_add)))
            }
            Document::Index(index) => {
                let mut sum = 0_u64;
                for child in index.manifests.iter().take(SHOWN) {
                    let Some((_, Document::Manifest(manifest))) = self.document(&child.digest)?
                    else {
                        return Ok(None);
                    };
                    let size = self.size(&Document::Manifest(manifest))?;
                    sum = sum.saturating_add(size.unwrap_or_default());
                }
                Ok(Some(sum))
            }
        }
    }

    pub(super) fn tag_line(&mut self, tag: String) -> Result<TagLine, Refusal> {
        let digest = match Tag::parse(&tag) {
            Ok(parsed) => self.registry.metadata.tag(self.name, &parsed)?,
            Err(_) => None,
        };
        let found = match &digest {
            Some(digest) => self.document(digest)?,
            None => None,
        };
        let Some((_, document)) = found else {
            return Ok(TagLine {
                tag,
                digest,
                kind: "",
                platforms: Vec::new(),
                size: None,
            });
        };
        let size = self.size(&document)?;
        let platforms = match &document {
            Document::Index(index) => platforms(&index.platforms()),
            Document::Manifest(manifest) => {
                let config = self.config(&manifest.config)?;
                config
                    .and_then(|config| platform(&config))
                    .into_iter()
                    .collect()
            }
        };
        Ok(TagLine {
            tag,
            digest,
            kind: kind(&document),
            platforms,
            size,
        })
    }

    /// Everything of a manifest.
    pub(super) fn image(&mut self, which: &ManifestName) -> Result<Image, Refusal> {
        let registry = self.registry;
        let held = registry.find_manifest(self.name, which)?;
        let held = held.ok_or_else(|| registry.absent(self.name, unknown_manifest(which)))?;
        let document = Document::parse(&held.media_type, &held.bytes).ok();
        let mut image = Image {
            media_type: held.media_type.clone(),
            kind: document.as_ref().map_or("unreadable", kind),
            artifact_type: None,
            bytes: held.bytes.len() as u64,
            size: None,
            tags: Vec::new(),
            subject: None,
            annotations: Vec::new(),
            layers: Vec::new(),
            children: Vec::new(),
            config: Vec::new(),
            referrers: registry
                .metadata
                .referrers(self.name, &held.digest, SHOWN)?,
            indexes: Vec::new(),
            is_cut: false,
            digest: held.digest,
        };
        match document {
            Some(Document::Manifest(manifest)) => {
                let config = self.config(&manifest.config)?;
                let mut history = config.as_ref().map(history).unwrap_or_default().into_iter();
                image.config = config.as_ref().map(facts).unwrap_or_default();
                let sizes = std::iter::once(&manifest.config).chain(&manifest.layers);
                image.size = Some(sizes.fold(0, |sum, one| sum.saturating_add(one.size)));
                let layers = manifest.layers.into_iter().take(SHOWN);
                image.layers = layers
                    .map(|descriptor| Part {
                        descriptor,
                        by: history.next(),
                    })
                    .collect();
                image.artifact_type = manifest.artifact_type;
                image.subject = manifest.subject;
                image.annotations = manifest.annotations.into_iter().collect();
            }
            Some(Document::Index(index)) => {
                for descriptor in index.manifests.into_iter().take(SHOWN) {
                    let found = self.document(&descriptor.digest)?;
                    let size = match &found {
                        Some((_, document @ Document::Manifest(_))) => self.size(document)?,
                        _ => None,
                    };
                    image.children.push(Child { descriptor, size });
                }
                let sizes = image.children.iter().map(|child| child.size);
                image.size = sizes.sum();
                image.artifact_type = index.artifact_type;
                image.subject = index.subject;
                image.annotations = index.annotations.into_iter().collect();
            }
            None => {}
        }
        image.annotations.truncate(SHOWN);
        self.named_by(&mut image)?;
        Ok(image)
    }

    /// The tags and indexes that name a manifest, as far as the budget goes.
    fn named_by(&mut self, image: &mut Image) -> Result<(), Refusal> {
        let metadata = &self.registry.metadata;
        for name in metadata.tags(self.name)? {
            if !self.spend() {
                break;
            }
            if let Ok(tag) = Tag::parse(&name)
                && metadata.tag(self.name, &tag)?.as_ref() == Some(&image.digest)
            {
                image.tags.push(name);
            }
        }
        for digest in metadata.manifests(self.name)? {
            if self.left == 0 {
                break;
            }
            let record = metadata.manifest(self.name, &digest)?;
            if !record.is_some_and(|record| media_type::is_index(&record.media_type)) {
                self.spend();
                continue;
            }
            if let Some((_, Document::Index(index))) = self.document(&digest)?
                && index.manifests.iter().any(|one| one.digest == image.digest)
            {
                image.indexes.push(digest);
            }
        }
        image.is_cut = self.left == 0;
        Ok(())
    }
}

/// What people call it.
fn kind(document: &Document) -> &'static str {
    match document {
        Document::Index(_) => "index",
        Document::Manifest(manifest) => {
            let config = manifest.config.media_type.as_str();
            if manifest.artifact_type.is_none()
                && [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config)
            {
                "image"
            } else {
                "artifact"
            }
        }
    }
}

fn platforms(all: &[Platform]) -> Vec<String> {
    let known = all.iter().filter(|platform| !platform.is_unknown());
    known
        .map(ToString::to_string)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn platform(config: &Value) -> Option<String> {
    let platform: Platform = serde_json::from_value(config.clone()).ok()?;
    (!platform.os.is_empty()).then(|| platform.to_string())
}

/// The steps that made layers, lowest first.
fn history(config: &Value) -> Vec<String> {
    let steps = config["history"].as_array().map_or(&[][..], Vec::as_slice);
    let real = steps.iter().filter(|step| step["empty_layer"] != true);
    real.map(|step| step["created_by"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// What a config says of the process and of the image.
fn facts(config: &Value) -> Vec<(&'static str, String)> {
    let words = |value: &Value| {
        let words = value.as_array()?.iter().filter_map(Value::as_str);
        let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
        (!words.is_empty()).then(|| words.join(" "))
    };
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let keys = |value: &Value| {
        let keys: Vec<_> = value.as_object()?.keys().cloned().collect();
        (!keys.is_empty()).then(|| keys.join(", "))
    };
    let process = &config["config"];
    let all = [
        ("Platform", platform(config)),
        ("Created", text(&config["created"])),
        ("User", text(&process["User"])),
        ("Entrypoint", words(&process["Entrypoint"])),
        ("Command", words(&process["Cmd"])),
        ("Working directory", text(&process["WorkingDir"])),
        ("Ports", keys(&process["ExposedPorts"])),
        ("Volumes", keys(&process["Volumes"])),
    ];
    let said = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_parts() {
        let names = |range: std::ops::Range<usize>| -> Vec<String> {
            range.map(|number| format!("n{number:03}")).collect()
        };
        let first = cut(names(0..120), "", "");
        assert_eq!(
            (first.lines.len(), first.total, first.has_before),
            (50, 120, false)
        );
        assert_eq!(first.next.as_deref(), Some("n049"));
        let last = cut(names(0..120), "", "n099");
        assert_eq!(
            (last.lines, last.has_before, last.next),
            (names(100..120), true, None)
        );
        let some = cut(names(0..120), "11", "");
        assert_eq!((some.total, some.next), (11, None));
        assert!(cut(names(0..3), "<script>", "").lines.is_empty());
    }

    #[test]
    fn a_config_says_what_it_can() {
        let config = serde_json::json!({"os": "linux", "architecture": "arm64", "variant": "v8",
            "config": {"Cmd": ["/a", "b c"], "Entrypoint": null, "ExposedPorts": {"80/tcp": {}}},
            "history": [{"created_by": "FROM"}, {"empty_layer": true, "created_by": "ENV"}, {}]});
        assert_eq!(
            facts(&config),
            [
                ("Platform", "linux/arm64/v8".to_owned()),
                ("Command", "\"/a\" \"b c\"".to_owned()),
                ("Ports", "80/tcp".to_owned()),
            ]
        );
        assert_eq!(history(&config), ["FROM", ""]);
        assert!(facts(&serde_json::json!([1])).is_empty());
    }
}
