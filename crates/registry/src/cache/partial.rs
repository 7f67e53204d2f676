//! Which repositories of a directory are, or were, caches: they hold what was asked for, so that a manifest there may name what is not.
//!
//! The file `ROOT/cached` has a prefix a line, an empty one for all. It is written when a registry starts with an upstream, and read by
//! whoever looks at the directory without being told of its upstreams.

use std::collections::BTreeSet;
use std::path::Path;

use towline_sys::fs::{self, FsError};

use crate::names::Repository;

const FILE: &str = "cached";
/// The largest such file, in bytes.
const LIMIT: u64 = 1 << 20;

/// The prefixes of repositories that are caches.
#[derive(Debug, Default)]
pub(crate) struct Cached(BTreeSet<String>);

impl Cached {
    /// Those of a directory.
    pub(crate) fn of(root: &Path) -> Result<Self, FsError> {
        let bytes = fs::read_optional(root.join(FILE), LIMIT)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// Whether the repository is one.
    pub(crate) fn has(&self, repository: &Repository) -> bool {
        let is_below = |prefix: &String| {
            let rest = repository.as_str().strip_prefix(prefix.as_str());
            prefix.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        self.0.iter().any(is_below)
    }
}

/// Adds prefixes to those of a directory.
pub(super) fn note<'a>(
    root: &Path,
    prefixes: impl Iterator<Item = &'a str>,
) -> Result<(), FsError> {
    let mut cached = Cached::of(root)?;
    let before = cached.0.len();
    cached.0.extend(prefixes.map(str::to_owned));
    if cached.0.len() == before {
        return Ok(());
    }
    // One that is empty is a line, too.
    let lines: Vec<&str> = cached.0.iter().map(String::as_str).collect();
    let text = lines.join("\n") + "\n";
    fs::write_atomic(root.join(FILE), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_added_and_fit_whole_parts_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let name = |text: &str| Repository::parse(text).unwrap();
        assert!(!Cached::of(folder.path()).unwrap().has(&name("a")));
        note(folder.path(), ["docker.io"].into_iter()).unwrap();
        note(folder.path(), ["k8s"].into_iter()).unwrap();
        let cached = Cached::of(folder.path()).unwrap();
        assert!(cached.has(&name("docker.io/library/nginx")) && cached.has(&name("k8s/pause")));
        assert!(!cached.has(&name("k8stoo/pause")) && !cached.has(&name("own")));
        note(folder.path(), [""].into_iter()).unwrap();
        assert!(Cached::of(folder.path()).unwrap().has(&name("own")));
    }
}
