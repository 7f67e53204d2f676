//! `hostPath`: checked, and made where its type says so.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

/// The path if it is what `kind` asks for.
pub(super) fn check(path: &Path, kind: &str) -> Result<PathBuf, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).ok();
    let is = |wanted: fn(&std::fs::FileType) -> bool| {
        meta.as_ref().is_some_and(|m| wanted(&m.file_type()))
    };
    let refuse = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    match kind {
        "DirectoryOrCreate" if meta.is_none() => {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path);
            made.map_err(|error| format!("create {shown}: {error}"))?;
        }
        "FileOrCreate" if meta.is_none() => {
            std::fs::File::create_new(path).map_err(|error| format!("create {shown}: {error}"))?;
        }
        "Directory" | "DirectoryOrCreate" if !is(std::fs::FileType::is_dir) => {
            return refuse("a directory");
        }
        "File" | "FileOrCreate" if !is(std::fs::FileType::is_file) => return refuse("a file"),
        "Socket" if !is(std::fs::FileType::is_socket) => return refuse("a socket file"),
        "CharDevice" if !is(std::fs::FileType::is_char_device) => {
            return refuse("a character device");
        }
        "BlockDevice" if !is(std::fs::FileType::is_block_device) => {
            return refuse("a block device");
        }
        // Without a type a missing path is made by the runtime, as a directory.
        "" if meta.is_none() => {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path);
            made.map_err(|error| format!("create {shown}: {error}"))?;
        }
        _ => {}
    }
    Ok(path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        assert!(
            check(&path("a"), "Directory")
                .unwrap_err()
                .ends_with("a is not a directory")
        );
        assert!(check(&path("a"), "DirectoryOrCreate").is_ok());
        assert!(check(&path("a"), "Directory").is_ok());
        assert!(check(&path("a"), "File").is_err());
        assert!(check(&path("f"), "FileOrCreate").is_ok());
        assert!(
            check(&path("f"), "Socket")
                .unwrap_err()
                .ends_with("f is not a socket file")
        );
    }
}
