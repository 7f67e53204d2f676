//! The staging directory: every operation starts at its descriptor and no symlink is ever followed by the kernel.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::attributes::Rights;
use super::error::{During as _, UnpackError, shown};
use super::name::split;
use crate::ceilings::Limit;

/// Nothing leads out, nothing is followed, nothing is mounted in between.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Directories that are kept open: few, since every layer on its way in has so many descriptors.
const KNOWN: usize = 32;
/// Symlinks in one path, as the kernel counts.
const LINKS: usize = 40;

/// The directory that a layer is unpacked into. Nobody else writes to it.
pub(crate) struct Place<'a> {
    root: OwnedFd,
    depth: usize,
    marks: &'a dyn Marks,
    /// Directories that were opened lately: entries come in groups, and go to and fro between a few.
    known: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// A path led through a symlink of the layer.
    links: bool,
}

/// Where an entry goes: its directory, and its name in there.
pub(crate) struct Spot<'p> {
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) name: &'p OsStr,
}

impl Spot<'_> {
    /// What has this name already; `None` where nothing has.
    pub(crate) fn stat(&self) -> rustix::io::Result<Option<Stat>> {
        stat(&self.dir, self.name)
    }
}

fn stat(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether this is overlayfs' whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The type of what was found.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What the kernel gives to something new, so that it needs no further call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    /// The owner.
    pub(crate) owner: Option<(Uid, Gid)>,
    /// Whether the mode is the one that was asked for: no mask, no access list that is handed down.
    pub(crate) mode: bool,
    /// Whether the working directory is this thread's own to change.
    pub(crate) directory: bool,
}

/// Who can say that a directory hides what lies below it in lower layers: for root's overlay mounts that takes a right which unpacking
/// takes nowhere else.
pub(crate) trait Marks {
    /// Marks the directory.
    fn opaque(&self, dir: &OwnedFd) -> rustix::io::Result<()>;
}

/// Marks by an extended attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute(&'static str);

impl Attribute {
    /// As overlay mounts of root, or of somebody else (`userxattr`), read it.
    pub(crate) fn of(rights: Rights) -> Self {
        Self(if rights.unprivileged {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        })
    }
}

impl Marks for Attribute {
    fn opaque(&self, dir: &OwnedFd) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(dir, self.0, b"y", rustix::fs::XattrFlags::empty())
    }
}

impl<'a> Place<'a> {
    /// Everything is made below `root`, directories at most `depth` deep.
    pub(crate) fn new(root: OwnedFd, depth: usize, marks: &'a dyn Marks) -> Self {
        Self {
            root,
            depth,
            marks,
            known: HashMap::new(),
            links: false,
        }
    }

    /// Where the entry with this clean path, not empty, goes. Directories that are missing on the way are made, mode 0755.
    pub(crate) fn spot<'p>(&mut self, path: &'p [u8]) -> Result<Spot<'p>, UnpackError> {
        self.find(path, true)
    }

    /// As [`Place::spot`] for something that is there already: no directory is made.
    pub(crate) fn existing<'p>(&mut self, path: &'p [u8]) -> Result<Spot<'p>, UnpackError> {
        self.find(path, false)
    }

    fn find<'p>(&mut self, path: &'p [u8], make: bool) -> Result<Spot<'p>, UnpackError> {
        let (parent, name) = split(path);
        let name = OsStr::from_bytes(name);
        if let Some(dir) = self.known.get(parent) {
            return Ok(Spot {
                dir: Rc::clone(dir),
                name,
            });
        }
        let dir = match self.open_dir(parent) {
            Ok(dir) => dir,
            Err(errno @ (Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) => {
                self.links |= errno != Errno::NOENT;
                self.walk(parent, path, make)?
            }
            Err(errno) => return Err(errno).during("open its directory", path),
        };
        let dir = Rc::new(dir);
        if self.known.len() == KNOWN {
            self.known.clear();
        }
        self.known.insert(parent.to_vec(), Rc::clone(&dir));
        Ok(Spot { dir, name })
    }

    /// Whether some path led through a symlink of the layer.
    pub(crate) fn went_through_links(&self) -> bool {
        self.links
    }

    /// Forgets what was opened: something on the way may have been replaced.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Opens a directory by its real path, for reading and for its attributes.
    pub(crate) fn open_for_attributes(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.openat(path, flags)
    }

    fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.openat(path, DIRECTORY)
    }

    fn openat(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        loop {
            let opened = rustix::fs::openat2(
                &self.root,
                OsStr::from_bytes(path),
                flags,
                Mode::empty(),
                RESOLVE,
            );
            if opened.as_ref().err() != Some(&Errno::INTR) {
                return opened;
            }
        }
    }

    /// Goes to a directory name by name: makes what is missing, and takes symlinks of this layer by their text, inside the layer's root.
    fn walk(&self, parent: &[u8], entry: &[u8], make: bool) -> Result<OwnedFd, UnpackError> {
        let mut todo: Vec<Vec<u8>> = names(parent).rev().collect();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut dir = self.open_dir(b"").during("open its directory", entry)?;
        while let Some(name) = todo.pop() {
            if name == b".." {
                real.pop();
                dir = self
                    .open_dir(&real.join(&b'/'))
                    .during("open its directory", entry)?;
                continue;
            }
            if real.len() == self.depth {
                return Err(UnpackError::Ceiling {
                    limit: Limit::PathDepth,
                    name: shown(entry),
                    ceiling: self.depth as u64,
                });
            }
            let at = OsStr::from_bytes(&name);
            let found = stat(&dir, at).during("look at its directory", entry)?;
            match found.as_ref().map(kind) {
                Some(FileType::Directory) => {}
                Some(FileType::Symlink) => {
                    links += 1;
                    if links > LINKS {
                        return Err(UnpackError::entry(entry, "its path has too many symlinks"));
                    }
                    let target = rustix::fs::readlinkat(&dir, at, Vec::new())
                        .during("read a symlink on its path", entry)?;
                    if target.as_bytes().starts_with(b"/") {
                        real.clear();
                        dir = self.open_dir(b"").during("open its directory", entry)?;
                    }
                    todo.extend(names(target.as_bytes()).rev());
                    continue;
                }
                Some(_) if !found.as_ref().is_some_and(is_whiteout) => {
                    return Err(UnpackError::entry(
                        entry,
                        format!("{:?} on its path is not a directory", shown(&name)),
                    ));
                }
                _ if !make || links > 0 => {
                    return Err(UnpackError::entry(
                        entry,
                        format!("{:?} on its path is not in this layer", shown(&name)),
                    ));
                }
                over => {
                    self.make_on_the_way(&dir, at, over.is_some())
                        .during("make its directory", entry)?;
                }
            }
            real.push(name);
            dir = self
                .open_dir(&real.join(&b'/'))
                .during("open its directory", entry)?;
        }
        Ok(dir)
    }

    fn make_on_the_way(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        over_whiteout: bool,
    ) -> rustix::io::Result<()> {
        if over_whiteout {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
        // Without the process's mask.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        if over_whiteout {
            self.make_opaque(&made)?;
        }
        Ok(())
    }

    /// What a new file or directory here has without being told; `None` where that cannot be relied on.
    pub(crate) fn given(&self) -> Given {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        // Some mounts, and set-group-id directories, hand down the directory's group.
        let owned = rustix::fs::statat(&self.root, "", AtFlags::EMPTY_PATH).is_ok_and(|root| {
            root.st_uid == uid.as_raw() && root.st_gid == gid.as_raw() && root.st_mode & 0o2000 == 0
        });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inherits = rustix::fs::openat(&self.root, ".", flags, Mode::empty()).and_then(|root| {
            rustix::fs::fgetxattr(root, "system.posix_acl_default", &mut [0_u8; 1])
        });
        let plain = matches!(inherits, Err(Errno::NODATA | Errno::NOTSUP));
        let own = towline_sys::fs::thread_without_mask().is_ok();
        Given {
            owner: owned.then_some((uid, gid)),
            mode: plain && own,
            directory: own,
        }
    }

    /// Marks a directory as hiding what lies below it in lower layers.
    pub(crate) fn make_opaque(&self, dir: &OwnedFd) -> rustix::io::Result<()> {
        self.marks.opaque(dir)
    }
}

/// The names of a path; `..` stays, for the caller to clamp at the root.
fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
}
