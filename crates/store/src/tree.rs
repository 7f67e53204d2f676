//! Removing what somebody else filled.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use towline_sys::fs::{self, FsError};

/// Removes a directory tree, also where its directories forbid it (an image's modes, and a process that is not root).
pub(crate) fn remove_tree(path: &Path) -> Result<(), FsError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        other => other,
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
