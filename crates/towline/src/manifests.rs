//! Kubernetes manifests from files: YAML or JSON, several documents a file, folders, or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::exit::hinted;

/// The most bytes that are read of one file.
const MAX_BYTES: u64 = 16 << 20;

/// An object and where it stands.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// File name, or `standard input`.
    pub(crate) place: String,
    /// The object.
    pub(crate) object: Value,
}

/// Reads every object of these files; `-` is standard input, a folder stands for its `.yaml`, `.yml` and `.json` files.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = whole(std::io::stdin()).context("read standard input")?;
            parse("standard input", &text, &mut manifests)?;
            continue;
        }
        for file in files(path)? {
            let place = file.display().to_string();
            let opened = std::fs::File::open(&file).with_context(|| format!("open {place}"))?;
            let text = whole(opened).with_context(|| format!("read {place}"))?;
            parse(&place, &text, &mut manifests)?;
        }
    }
    Ok(manifests)
}

/// The text of a file of at most [`MAX_BYTES`]; what is larger is refused, not cut.
pub(crate) fn whole(file: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!(
                "it is larger than the {} MiB that are read of one file; split it",
                MAX_BYTES >> 20
            ),
        ));
    }
    Ok(text)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        std::fs::read_dir(path).with_context(|| format!("read the folder {}", path.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.retain(|file| {
        file.extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
    });
    found.sort();
    Ok(found)
}

fn parse(place: &str, text: &str, into: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        hinted(
            format!("{place} is not YAML that can be read: {error}"),
            "correct the line it names",
        )
    })?;
    for document in documents {
        flatten(place, document, into)?;
    }
    Ok(())
}

/// Lists hold objects; anything else must be one.
fn flatten(place: &str, document: Value, into: &mut Vec<Manifest>) -> anyhow::Result<()> {
    if document.is_null() {
        return Ok(());
    }
    if document["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"))
        && document["items"].is_array()
    {
        for item in document["items"].as_array().cloned().unwrap_or_default() {
            flatten(place, item, into)?;
        }
        return Ok(());
    }
    for field in ["apiVersion", "kind"] {
        if document[field].as_str().is_none_or(str::is_empty) {
            return Err(hinted(
                format!("{place} holds a document without {field}"),
                "every Kubernetes object names its apiVersion and kind",
            ));
        }
    }
    into.push(Manifest {
        place: place.to_owned(),
        object: document,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret}\n";
        let mut found = Vec::new();
        parse("x.yaml", text, &mut found).unwrap();
        let kinds: Vec<&str> = found
            .iter()
            .filter_map(|manifest| manifest.object["kind"].as_str())
            .collect();
        assert_eq!(kinds, ["Pod", "Secret"]);
        assert!(
            parse("x.yaml", "kind: Pod\n", &mut found)
                .unwrap_err()
                .to_string()
                .contains("apiVersion")
        );
        assert!(parse("x.yaml", "a: [", &mut found).is_err());
    }
}
