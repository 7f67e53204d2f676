//! Removing a tree that somebody else has filled: however deep it is, whatever its modes are, with a bounded stack and few descriptors.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories that are open at once. What is deeper moves up to the top first.
const OPEN: usize = 64;
/// A directory into which somebody else still puts something is looked through so often.
const LOOKS: u32 = 3;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory that is being emptied.
struct Level {
    dir: Dir,
    /// In the directory before; empty for the top.
    name: CString,
    /// How often it was looked through.
    looks: u32,
}

impl Level {
    fn new(fd: OwnedFd, name: CString, looks: u32) -> rustix::io::Result<Self> {
        let dir = Dir::new(fd)?;
        Ok(Self { dir, name, looks })
    }

    fn fd(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.dir.fd()
    }
}

/// Removes `path` with all that is in it. Symlinks are removed and never followed. Fails with `NotFound` where it is not there, and with
/// `DirectoryNotEmpty` where somebody else does not cease to put something in.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return std::fs::remove_file(path);
    }
    let mut looks = 0;
    loop {
        let top = open(rustix::fs::CWD, path)?;
        let moved = empty(Level::new(top, CString::default(), looks)?)?;
        match rustix::fs::rmdir(path) {
            // What was too deep is at the top now.
            Err(Errno::NOTEMPTY) if moved => {}
            Err(Errno::NOTEMPTY) if looks < LOOKS => looks += 1,
            other => return Ok(other?),
        }
    }
}

/// Empties a directory; whether something was moved up to it, which is to be removed yet.
fn empty(top: Level) -> io::Result<bool> {
    let mut moved = false;
    let mut levels = vec![top];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.dir.next() else {
            let Some(done) = levels.pop() else { break };
            let Some(parent) = levels.last() else { break };
            if let Some(again) = leave(parent.fd()?, done)? {
                levels.push(again);
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let known = entry.file_type();
        if known != FileType::Directory && unlinked(level.fd()?, name)? {
            continue;
        }
        if levels.len() == OPEN {
            moved |= move_up(&levels, name)?;
            continue;
        }
        let Some(level) = levels.last() else { break };
        match open(level.fd()?, name) {
            Ok(child) => levels.push(Level::new(child, name.to_owned(), 0)?),
            Err(Errno::NOENT) => {}
            // Something else took its place meanwhile; what does so again is found at the end.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlinked(level.fd()?, name)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(moved)
}

/// Opens a directory, also one whose owner has shut himself out.
fn open(dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(&dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // It may be the directory before that forbids it; what comes next says so.
            rustix::fs::fchmod(&dir, Mode::RWXU).ok();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            // By descriptor: what takes its place meanwhile keeps its mode.
            let by_descriptor = format!("/proc/self/fd/{}", found.as_raw_fd());
            rustix::fs::chmod(by_descriptor, Mode::RWXU)?;
            rustix::fs::openat(&dir, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// Does something to a name in a directory; once more with the right to, where the directory's mode forbids it to its owner.
fn with_right<T>(
    dir: BorrowedFd<'_>,
    act: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match act() {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            act()
        }
        other => other,
    }
}

/// Removes what is no directory; false where it is one.
fn unlinked(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    match with_right(dir, || rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes a directory that was looked through; gives it back where something is in it all the same.
fn leave(parent: BorrowedFd<'_>, done: Level) -> rustix::io::Result<Option<Level>> {
    let remove = || rustix::fs::unlinkat(parent, done.name.as_c_str(), AtFlags::REMOVEDIR);
    match with_right(parent, remove) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTEMPTY) if done.looks < LOOKS => {
            let again = open(parent, done.name.as_c_str())?;
            Ok(Some(Level::new(again, done.name, done.looks + 1)?))
        }
        Err(errno) => Err(errno),
    }
}

/// Moves a directory from the deepest level to the top, under a name that nobody else has; false where it is gone.
fn move_up(levels: &[Level], name: &CStr) -> rustix::io::Result<bool> {
    let (Some(top), Some(deepest)) = (levels.first(), levels.last()) else {
        return Ok(false);
    };
    let (top, dir) = (top.fd()?, deepest.fd()?);
    loop {
        let fresh = format!(".removed-{:016x}", fastrand::u64(..));
        let rename = || rustix::fs::renameat(dir, name, top, fresh.as_str());
        let renamed = match rename() {
            // A directory that goes elsewhere is changed itself too.
            Err(Errno::ACCESS) => {
                let child = open(dir, name)?;
                for changed in [dir, top, child.as_fd()] {
                    rustix::fs::fchmod(changed, Mode::RWXU)?;
                }
                rename()
            }
            other => other,
        };
        match renamed {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Makes a chain of directories that no path leads through, with a file at its end.
    fn dig(top: &Path, depth: usize) {
        let mut at = rustix::fs::open(top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(rustix::fs::openat(&at, "file", flags, Mode::RUSR).unwrap());
    }

    #[test]
    fn a_tree_of_any_depth_goes_on_a_small_stack() {
        // In memory where the machine has such a place: a disk takes its time for so many.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        for (side, depth) in [("one", 50_000), ("two", 500)] {
            std::fs::create_dir(top.join(side)).unwrap();
            dig(&top.join(side), depth);
        }
        let path = top.clone();
        let small = std::thread::Builder::new().stack_size(128 << 10);
        let removing = small.spawn(move || remove(&path)).unwrap();
        removing.join().unwrap().unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn links_lead_nowhere_and_modes_forbid_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, top) = (dir.path().join("outside"), dir.path().join("top"));
        std::fs::create_dir_all(outside.join("in")).unwrap();
        std::fs::write(outside.join("in/kept"), "x").unwrap();
        let deep = top.join("a/".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        symlink(&outside, top.join("a/link")).unwrap();
        symlink(&outside, deep.join("link")).unwrap();
        std::fs::write(deep.join("file"), "x").unwrap();
        for (path, mode) in [
            (deep.as_path(), 0o000),
            (&top.join("a/a"), 0o500),
            (&top.join("a"), 0o100),
        ] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("in/kept").exists());
        symlink(&outside, &top).unwrap();
        remove(&top).unwrap();
        assert!(!top.is_symlink() && outside.join("in/kept").exists());
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = outside.join("in/kept");
        assert_eq!(
            remove(&file).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        assert!(file.exists());
    }
}
