//! Opening files inside a directory that somebody else filled (an image's root
//! file system): no symlink, `..` or magic link leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::fs::{At as _, FsError, read_file_bounded};

/// Absolute symlinks and `..` are resolved as if the directory were `/`; the
/// magic links of `/proc` are refused.
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The kernel asks to try again when a rename raced with the resolution of a
/// `..`; more often than this is an attack.
const RACES: u32 = 64;

/// Symlinks in a path that [`Root::mkdir_all`] creates, at most.
const DEPTH: usize = 256;

/// A directory that opened paths cannot leave.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Confines to `path`, itself trusted.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FsError> {
        let path = path.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).at("open directory", &path)?;
        Ok(Self { dir, path })
    }

    /// The directory it confines to, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `inside` with raw flags; the general form.
    pub fn open_with(
        &self,
        inside: impl AsRef<Path>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, FsError> {
        let inside = inside.as_ref();
        self.openat2(inside, flags, mode)
            .at("open", self.shown(inside))
    }

    /// Opens a regular file for reading. Anything else (a device, a FIFO that
    /// would hang, a directory) is an error.
    pub fn open_file(&self, inside: impl AsRef<Path>) -> Result<File, FsError> {
        let inside = inside.as_ref();
        // Without NONBLOCK the open of a FIFO waits for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_with(inside, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd).at("stat", self.shown(inside))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(FsError::new("open", self.shown(inside), error));
        }
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read_bounded(&self, inside: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, FsError> {
        let inside = inside.as_ref();
        let file = self.open_file(inside)?;
        read_file_bounded(file, limit).at("read", self.shown(inside))
    }

    /// As [`read_bounded`](Self::read_bounded), `None` when it is not there.
    pub fn read_optional(
        &self,
        inside: impl AsRef<Path>,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, FsError> {
        match self.read_bounded(inside, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the directory `inside` and those above it with `mode`, and
    /// answers a handle (`O_PATH`) to it. Symlinks on the way are followed
    /// inside the root; `..` is refused; a dangling symlink is an error.
    pub fn mkdir_all(&self, inside: impl AsRef<Path>, mode: u32) -> Result<OwnedFd, FsError> {
        let inside = inside.as_ref();
        let names = plain_components(inside).at("create directory", self.shown(inside))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut at = self
            .openat2(Path::new("."), flags, Mode::empty())
            .at("open directory", &self.path)?;
        let mut done = PathBuf::new();
        for name in names {
            done.push(name);
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => {
                    return Err(FsError::new("create directory", self.shown(&done), errno));
                }
            }
            // Opened from the root again: a symlink resolves inside it.
            at = self
                .openat2(&done, flags, Mode::empty())
                .at("open directory", self.shown(&done))?;
        }
        Ok(at)
    }

    fn openat2(&self, inside: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.dir, inside, flags, mode, RESOLVE) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if tries < RACES => {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    fn shown(&self, inside: &Path) -> PathBuf {
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        self.path.join(relative)
    }
}

fn plain_components(path: &Path) -> io::Result<Vec<&std::ffi::OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if names.len() < DEPTH => names.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the path has `..` in it or is too deep",
                ));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        std::fs::create_dir_all(path.join("etc")).unwrap();
        std::fs::write(path.join("etc/passwd"), "inside").unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        (dir, Root::open(path).unwrap())
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (dir, root) = root();
        symlink("/etc", root.path().join("abs")).unwrap();
        symlink("../../../etc/passwd", root.path().join("dots")).unwrap();
        symlink(dir.path().join("secret"), root.path().join("out")).unwrap();
        symlink("/proc/self/root/etc/passwd", root.path().join("magic")).unwrap();
        for path in [
            "etc/passwd",
            "/etc/passwd",
            "/../../etc/passwd",
            "abs/passwd",
            "dots",
        ] {
            assert_eq!(root.read_bounded(path, 10).unwrap(), b"inside", "{path}");
        }
        for path in ["out", "magic", "../secret", "secret"] {
            assert!(root.read_optional(path, 10).unwrap().is_none(), "{path}");
        }
    }

    #[test]
    fn fifos_devices_and_large_files_are_refused() {
        let (_dir, root) = root();
        let fifo = root.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(root.read_bounded("fifo", 10).is_err());
        assert!(root.read_bounded("etc", 10).is_err());
        let error = root.read_bounded("etc/passwd", 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn directories_are_made_inside() {
        let (dir, root) = root();
        symlink("/", root.path().join("top")).unwrap();
        symlink(dir.path(), root.path().join("out")).unwrap();
        root.mkdir_all("/top/a/b", 0o755).unwrap();
        assert!(root.path().join("a/b").is_dir());
        assert!(root.mkdir_all("a/../../x", 0o755).is_err());
        assert!(root.mkdir_all("out/x", 0o755).is_err(), "a dangling link");
        assert!(!dir.path().join("x").exists());
        assert!(root.mkdir_all("etc/passwd/x", 0o755).is_err());
    }
}
