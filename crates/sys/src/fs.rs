//! File operations whose errors name what was done to which path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A file operation that failed: what, on which path, why.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", display(path, other.as_deref()))]
pub struct FsError {
    /// The operation as a verb phrase: `create directory`, `rename`.
    pub action: &'static str,
    /// The path it was done to.
    pub path: PathBuf,
    /// The second path of a rename or link.
    pub other: Option<PathBuf>,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

fn display(path: &Path, other: Option<&Path>) -> String {
    match other {
        Some(other) => format!("{} to {}", path.display(), other.display()),
        None => path.display().to_string(),
    }
}

impl FsError {
    /// Wraps an error of `action` on `path`.
    pub fn new(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self {
            action,
            path: path.into(),
            other: None,
            source: source.into(),
        }
    }

    /// The kind of the system's answer.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// Whether the disk or the quota is full.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

impl From<FsError> for io::Error {
    fn from(error: FsError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Shorthand used by this crate and by callers with operations of their own:
/// `file.sync_all().at("sync", &path)?`.
pub trait At<T> {
    /// Adds the action and the path to an I/O error.
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, FsError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, FsError> {
        self.map_err(|source| FsError::new(action, path, source))
    }
}

/// Creates a directory and those above it, mode 0755 less the umask.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    fs::create_dir_all(path).at("create directory", path)
}

/// Creates a directory and those above it; the last one gets exactly `mode`,
/// whether it existed or not.
pub fn create_dir_all_mode(path: impl AsRef<Path>, mode: u32) -> Result<(), FsError> {
    let path = path.as_ref();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .at("create directory", path)?;
    set_mode(path, mode)
}

/// Sets the permission bits of a path (a symlink is followed).
pub fn set_mode(path: impl AsRef<Path>, mode: u32) -> Result<(), FsError> {
    let path = path.as_ref();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Opens a file for reading.
pub fn open(path: impl AsRef<Path>) -> Result<File, FsError> {
    let path = path.as_ref();
    File::open(path).at("open", path)
}

/// Reads a whole file of at most `limit` bytes. A larger one, also one that
/// grows or lies about its size, is an error of kind `FileTooLarge`.
pub fn read_bounded(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, FsError> {
    let path = path.as_ref();
    let file = open(path)?;
    read_file_bounded(file, limit).at("read", path)
}

/// As [`read_bounded`], `None` when the file does not exist.
pub fn read_optional(path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>, FsError> {
    match read_bounded(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read_bounded`], as UTF-8.
pub fn read_to_string_bounded(path: impl AsRef<Path>, limit: u64) -> Result<String, FsError> {
    let path = path.as_ref();
    let bytes = read_bounded(path, limit)?;
    String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        .at("read as UTF-8", path)
}

pub(crate) fn read_file_bounded(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than the allowed {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Writes a file so that after any crash either the old or the new content is
/// there, whole: temporary file beside it, sync, rename, sync of the
/// directory. Mode 0644 less the umask.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FsError> {
    write_atomic_mode(path, bytes, 0o644)
}

/// As [`write_atomic`] with the mode, for instance 0600 for keys.
pub fn write_atomic_mode(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let path = path.as_ref();
    stage(path, bytes, mode, true)?;
    sync_dir(parent(path))
}

/// Replaces a file so that a reader, also after this process was killed, finds
/// the old or the new content whole. Nothing is said of a power loss: for what
/// describes processes, which do not survive it either.
pub fn replace(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    stage(path.as_ref(), bytes, mode, false)
}

fn stage(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<(), FsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staging = parent(path).join(format!(".{name}.{:016x}.tmp", fastrand::u64(..)));
    let written = write_new(&staging, bytes, mode, durable).and_then(|()| rename(&staging, path));
    if written.is_err() {
        // The first error is what matters; what is left over is only litter.
        drop(fs::remove_file(&staging));
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> Result<(), FsError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    if durable {
        file.sync_all().at("sync", path)?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Renames; the target is replaced.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), FsError> {
    let (from, to) = (from.as_ref(), to.as_ref());
    fs::rename(from, to).map_err(|source| FsError {
        action: "rename",
        path: from.into(),
        other: Some(to.into()),
        source,
    })
}

/// Removes a file; that it is not there is no error.
pub fn remove_file(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    ignore_missing(fs::remove_file(path)).at("remove", path)
}

/// Removes a directory and all in it, however deep and whatever the modes of what is in it; that it is not there is no error.
/// Symlinks in it are removed, never followed.
pub fn remove_dir_all(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    ignore_missing(crate::tree::remove(path)).at("remove directory", path)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names in a directory, sorted. `limit` bounds their number.
pub fn read_dir_names(
    path: impl AsRef<Path>,
    limit: usize,
) -> Result<Vec<std::ffi::OsString>, FsError> {
    let path = path.as_ref();
    let mut names = Vec::new();
    for entry in fs::read_dir(path).at("list", path)? {
        if names.len() == limit {
            let error = io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {limit} entries"),
            );
            return Err(FsError::new("list", path, error));
        }
        names.push(entry.at("list", path)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Makes the entries of a directory durable (after a create or rename in it).
pub fn sync_dir(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .at("sync directory", path)
}

/// Writes everything of the file system that holds `path` to the disk: one
/// call for a tree of many files, instead of one `fsync` for each.
pub fn sync_fs(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    let file = open(path)?;
    rustix::fs::syncfs(&file).at("sync the file system of", path)
}

/// Gives the calling *thread* its own file mode mask, 0: what it creates has exactly the mode it asks for.
pub fn thread_without_mask() -> std::io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

/// How much of the file system that holds `path` is free for an unprivileged user, in per cent of all.
pub fn free_percent(path: impl AsRef<Path>) -> Result<u64, FsError> {
    let path = path.as_ref();
    let stat = rustix::fs::statvfs(path).at("stat the file system of", path)?;
    Ok(stat.f_bavail.saturating_mul(100) / stat.f_blocks.max(1))
}

/// Free space of the file system that holds `path`, for an unprivileged user,
/// in bytes.
pub fn free_space(path: impl AsRef<Path>) -> Result<u64, FsError> {
    let path = path.as_ref();
    let stat = rustix::fs::statvfs(path).at("ask the free space of", path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_action_and_paths() {
        let error = rename("/nonexistent/a", "/nonexistent/b").unwrap_err();
        assert_eq!(error.to_string(), "rename /nonexistent/a to /nonexistent/b");
        assert!(error.is_not_found());
        let error = open("/nonexistent/a").unwrap_err();
        assert_eq!(error.to_string(), "open /nonexistent/a");
    }

    #[test]
    fn atomic_write_replaces_and_leaves_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"one").unwrap();
        replace(&path, b"more", 0o644).unwrap();
        write_atomic_mode(&path, b"two", 0o600).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(read_dir_names(dir.path(), 10).unwrap(), ["x"]);
    }

    #[test]
    fn a_failed_atomic_write_leaves_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::create_dir_all(path.join("full")).unwrap();
        assert!(write_atomic(&path, b"one").is_err());
        assert_eq!(read_dir_names(dir.path(), 10).unwrap(), ["x"]);
    }

    #[test]
    fn reads_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"four").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap(), b"four");
        assert_eq!(
            read_bounded(&path, 3).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(
            read_bounded("/dev/zero", 9).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert!(read_optional(dir.path().join("y"), 4).unwrap().is_none());
    }
}
