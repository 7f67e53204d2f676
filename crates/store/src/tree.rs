//! Removing what somebody else filled.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use towline_sys::fs::{self, FsError};

/// How long something may still be put into a tree that is removed: the helper of a process that was killed ends a moment after it.
const FILLED: Duration = Duration::from_secs(10);

/// Removes a directory tree, also while something is still put into it.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FsError> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir_all(path) {
            Err(error)
                if error.kind() == ErrorKind::DirectoryNotEmpty && begun.elapsed() < FILLED =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}
