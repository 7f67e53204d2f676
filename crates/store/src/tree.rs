//! Removing what somebody else filled.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use towline_sys::fs::{self, FsError};

/// How long something may still be put into a tree that is removed: the helper of a process that was killed ends a moment after it.
const FILLED: Duration = Duration::from_secs(10);

/// Removes a directory tree, also where its directories forbid it (an image's modes, and a process that is not root).
pub(crate) fn remove_tree(path: &Path) -> Result<(), FsError> {
    let begun = Instant::now();
    let mut opened = false;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !opened => {
                open_up(path);
                opened = true;
            }
            Err(error)
                if error.kind() == ErrorKind::DirectoryNotEmpty && begun.elapsed() < FILLED =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Lets the owner into every directory; what cannot be changed shows in the removal that follows.
fn open_up(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).ok();
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
