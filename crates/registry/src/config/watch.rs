//! Whether files changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files as they were when they were last read. A file that is replaced by a link to another one, as Kubernetes does with
/// mounted secrets, has changed too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Watched {
    /// Looks at files. Do this before they are read, so that a change meanwhile is seen later.
    pub(crate) fn now<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamped = files
            .into_iter()
            .map(|file| (file.to_owned(), stamp(file)))
            .collect();
        Self(stamped)
    }

    /// These and others.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Takes them as they are now.
    pub(crate) fn look_again(&mut self) {
        for (file, seen) in &mut self.0 {
            *seen = stamp(file);
        }
    }

    /// Whether any of them is not what it was.
    pub(crate) fn changed(&self) -> bool {
        self.0.iter().any(|(file, before)| stamp(file) != *before)
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(file).ok()?;
    Some(Stamp {
        modified: found.modified().ok(),
        length: found.len(),
        inode: found.ino(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_a_replacement_and_a_removal_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let look = || Watched::now([file.as_path()]);
        let missing = look();
        std::fs::write(&file, "one").unwrap();
        assert!(missing.changed());
        let one = look();
        assert!(!one.changed());
        std::fs::write(&file, "three").unwrap();
        assert!(one.changed());
        let three = look();
        std::fs::write(folder.path().join("g"), "three").unwrap();
        std::fs::rename(folder.path().join("g"), &file).unwrap();
        assert!(three.changed());
        let last = look();
        std::fs::remove_file(&file).unwrap();
        assert!(last.changed());
    }
}
