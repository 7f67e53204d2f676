//! Files that the kernel finds without asking the disk.
//!
//! With `RESOLVE_CACHED` it opens a file only if it knows all of the way to it already. Whoever serves the same file again and again
//! then needs no thread for what may block.

use std::fs::File;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

fn at_once(path: &Path, how: OFlags) -> Option<File> {
    // An older kernel knows no such flag: it is as if nothing was known.
    let opened = openat2(
        CWD,
        path,
        how | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::CACHED,
    );
    Some(File::from(opened.ok()?))
}

/// The file for reading.
pub(super) fn open(path: &Path) -> Option<File> {
    at_once(path, OFlags::RDONLY)
}

/// Whether there is a file.
pub(super) fn is_there(path: &Path) -> bool {
    at_once(path, OFlags::PATH).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_used_is_found_and_what_is_not_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "x").unwrap();
        std::fs::metadata(&path).unwrap();
        // Under pressure the kernel forgets, and an old one or a sandbox knows no openat2 at all.
        if let Some(file) = open(&path) {
            assert_eq!(file.metadata().unwrap().len(), 1);
            assert!(is_there(&path));
        }
        assert!(!is_there(&folder.path().join("b")) && open(&folder.path().join("b")).is_none());
    }
}
