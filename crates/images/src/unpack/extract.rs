//! Entries made into files, in overlayfs' form.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use towline_store::{Checksum, Listing};

use super::archive::{Archive, Entry, Kind};
use super::attributes::Attributes;
pub(crate) use super::attributes::Rights;
use super::error::{During as _, UnpackError, shown};
use super::name::{clean, split};
use super::place::{Given, Marks, Place, Spot, is_whiteout, kind};
use super::sparse::Sparse;
use crate::Ceilings;
use crate::ceilings::Limit;

/// Bytes of directories' names and extended attributes, which wait for the end.
pub(crate) const WAITING_BYTES: usize = 256 << 20;
/// A file of so many bytes is sent to the disk as soon as it is whole: the sync at the end then has little left to do. Small ones are cheaper to
/// write together.
const WRITE_BEHIND: u64 = 32 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Bytes of files.
    pub(crate) size: u64,
    /// Files, directories, links, whiteouts.
    pub(crate) entries: u64,
    /// The whole layer below is hidden.
    pub(crate) opaque_root: bool,
    /// The list of its files holds: no path means two things.
    pub(crate) listed: bool,
    /// Devices that were left out, because only root makes one.
    pub(crate) left_out: u64,
}

/// Where an archive is unpacked to.
pub(crate) struct Target<'a> {
    /// An empty directory that nobody else uses.
    pub(crate) root: OwnedFd,
    /// What becomes the list of the files.
    pub(crate) listing: Listing,
    pub(crate) rights: Rights,
    pub(crate) marks: &'a (dyn Marks + Sync),
}

/// Unpacks an archive and reads the input to its end. The calling thread loses its file mode mask and its working directory: it should do
/// nothing else.
pub(crate) fn extract<R: BufRead>(
    input: R,
    target: Target<'_>,
    ceilings: &Ceilings,
) -> Result<Extracted, UnpackError> {
    let place = Place::new(target.root, ceilings.path_depth, target.marks);
    let mut extractor = Extractor {
        given: place.given(),
        place,
        ceilings,
        rights: target.rights,
        done: Extracted::default(),
        directories: BTreeMap::new(),
        waiting: 0,
        replaced: false,
        listing: target.listing,
    };
    let mut archive = Archive::new(input, ceilings);
    while let Some(entry) = archive.next()? {
        extractor.entry(&mut archive, &entry)?;
    }
    archive.drain()?;
    extractor.finish_directories()?;
    extractor.listing.finish().during("list the files", b"")?;
    extractor.done.listed = !extractor.replaced && !extractor.place.went_through_links();
    Ok(extractor.done)
}

struct Extractor<'a> {
    place: Place<'a>,
    ceilings: &'a Ceilings,
    rights: Rights,
    done: Extracted,
    /// Attributes that wait: a directory's times change with each file in it, and its mode may forbid more files.
    directories: BTreeMap<Vec<u8>, Waiting>,
    waiting: usize,
    /// A later entry took the place of another: a directory's path may lead elsewhere now.
    replaced: bool,
    listing: Listing,
    given: Given,
}

/// A directory that has not all its attributes.
struct Waiting {
    attributes: Attributes,
    /// Only its times are to be set.
    only_times: bool,
}

impl Extractor<'_> {
    fn entry<R: BufRead>(
        &mut self,
        archive: &mut Archive<'_, R>,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let path = clean(&entry.path, self.ceilings)?;
        self.done.entries += 1;
        if self.done.entries > self.ceilings.entries {
            return Err(UnpackError::over(Limit::Entries, self.ceilings.entries));
        }
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(UnpackError::entry(
                    &entry.path,
                    "the layer's root is not a directory",
                ));
            }
            return self.wait(path, Attributes::of(entry)?, false);
        }
        if split(&path).1.starts_with(WHITEOUT) {
            return self.whiteout(&path);
        }
        match &entry.kind {
            Kind::Directory => self.directory(path, entry),
            Kind::File { .. } => self.file(&path, entry, archive),
            Kind::HardLink { target } => self.hard_link(&path, target),
            Kind::Symlink { target } => self.symlink(&path, target, entry),
            Kind::Fifo => self.node(&path, entry, FileType::Fifo, 0),
            Kind::Char { major: 0, minor: 0 } => Err(UnpackError::entry(
                &path,
                "a device 0:0 is overlayfs' own mark and not an image's to make",
            )),
            Kind::Char { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(&path, entry, FileType::CharacterDevice, device)
            }
            Kind::Block { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                self.node(&path, entry, FileType::BlockDevice, device)
            }
        }
    }

    fn directory(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        let attributes = Attributes::of(entry)?;
        let spot = self.place.spot(&path)?;
        // Whoever may not enter it could not fill it.
        let enterable = |mode: &Mode| mode.contains(Mode::RWXU);
        let at_once = attributes.mode_at_once(self.given).filter(enterable);
        let mode = at_once.unwrap_or(Mode::RWXU);
        match rustix::fs::mkdirat(&spot.dir, spot.name, mode) {
            Ok(()) => {
                let only_times = at_once.is_some() && attributes.owned(self.given);
                return self.wait(path, attributes, only_times);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).during("make the directory", &path),
        }
        let found = spot.stat().during("look at it", &path)?;
        if found.as_ref().map(kind) == Some(FileType::Directory) {
            return self.wait(path, attributes, false);
        }
        let whiteout = found.as_ref().is_some_and(is_whiteout);
        self.clear(&spot, &path)?;
        rustix::fs::mkdirat(&spot.dir, spot.name, Mode::RWXU)
            .during("make the directory", &path)?;
        if whiteout {
            let made = open_made(&spot).during("open the directory", &path)?;
            self.place
                .make_opaque(&made)
                .during("mark it opaque", &path)?;
        }
        self.wait(path, attributes, false)
    }

    fn file<R: BufRead>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<(), UnpackError> {
        let attributes = Attributes::of(entry)?;
        let spot = self.place.spot(path)?;
        let at_once = attributes.mode_at_once(self.given);
        let mode = at_once.unwrap_or(Mode::from_raw_mode(0o600));
        let mut file = match create(&spot, mode) {
            Err(Errno::EXIST) => {
                self.clear(&spot, path)?;
                create(&spot, mode)
            }
            other => other,
        }
        .map(File::from)
        .during("create the file", path)?;
        let mut checksum = Checksum::default();
        let before = self.done.size;
        match &entry.sparse {
            None => self.write(&mut file, path, archive, u64::MAX, &mut checksum)?,
            Some(sparse) => self.write_sparse(&mut file, path, archive, sparse, &mut checksum)?,
        }
        if self.done.size - before >= WRITE_BEHIND {
            write_behind(&file);
        }
        self.listing
            .file(path, checksum)
            .during("list the file", path)?;
        let file = file.into();
        if at_once.is_some() {
            attributes.set_rest(&file, path, self.rights, self.given)
        } else {
            attributes.set(&file, path, self.rights)
        }
    }

    /// Writes what comes of the entry's content, at most `most` bytes.
    fn write<R: BufRead>(
        &mut self,
        file: &mut File,
        path: &[u8],
        archive: &mut Archive<'_, R>,
        most: u64,
        checksum: &mut Checksum,
    ) -> Result<(), UnpackError> {
        let mut left = most;
        while left > 0 {
            let piece = archive.piece()?;
            let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if length == 0 {
                break;
            }
            let piece = &piece[..length];
            checksum.update(piece);
            file.write_all(piece).during("write the file", path)?;
            archive.took(length);
            left -= length as u64;
            self.done.size += length as u64;
        }
        Ok(())
    }

    /// Writes each piece to its place; what is between them stays a hole.
    fn write_sparse<R: BufRead>(
        &mut self,
        file: &mut File,
        path: &[u8],
        archive: &mut Archive<'_, R>,
        sparse: &Sparse,
        checksum: &mut Checksum,
    ) -> Result<(), UnpackError> {
        let mut at = 0;
        for piece in &sparse.pieces {
            checksum.zeros(piece.at - at);
            file.seek(SeekFrom::Start(piece.at))
                .during("go to a place in the file", path)?;
            self.write(file, path, archive, piece.len, checksum)?;
            at = piece.at + piece.len;
        }
        checksum.zeros(sparse.size - at);
        file.set_len(sparse.size).during("set its size", path)
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if target.is_empty() || target.contains(&0) || target.len() > self.ceilings.path_bytes {
            return Err(UnpackError::entry(
                path,
                "its target is empty, too long, or has NUL in it",
            ));
        }
        let attributes = Attributes::of(entry)?;
        let spot = self.place.spot(path)?;
        let make = || rustix::fs::symlinkat(OsStr::from_bytes(target), &spot.dir, spot.name);
        match make() {
            Err(Errno::EXIST) => {
                self.clear(&spot, path)?;
                make()
            }
            other => other,
        }
        .during("make the symlink", path)?;
        attributes.set_at(&spot, path, false, self.rights, self.given)
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let refuse = |problem: &str| {
            let target = shown(target);
            Err(UnpackError::entry(
                path,
                format!("its hard link to {target:?} {problem}"),
            ))
        };
        let Ok(real) = clean(target, self.ceilings) else {
            return refuse("could lead out of the layer");
        };
        if real == path {
            return Ok(());
        }
        if real.is_empty() {
            return refuse("names a directory");
        }
        let from = self.place.existing(&real)?;
        match from.stat().during("look at its target", path)? {
            None => return refuse("names nothing in this layer"),
            Some(found) if is_whiteout(&found) => return refuse("names nothing in this layer"),
            Some(found) if kind(&found) == FileType::Directory => {
                return refuse("names a directory");
            }
            Some(_) => {}
        }
        let spot = self.place.spot(path)?;
        if let Some(found) = spot.stat().during("look at it", path)? {
            let same = from.stat().during("look at its target", path)?;
            if same.is_some_and(|same| same.st_ino == found.st_ino) {
                return Ok(());
            }
            self.clear(&spot, path)?;
        }
        // No flag: a symlink is linked itself, never what it points to.
        rustix::fs::linkat(&from.dir, from.name, &spot.dir, spot.name, AtFlags::empty())
            .during("make the hard link", path)
    }

    fn node(
        &mut self,
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<(), UnpackError> {
        let attributes = Attributes::of(entry)?;
        if self.rights.unprivileged && kind != FileType::Fifo {
            self.done.left_out += 1;
            return Ok(());
        }
        let spot = self.place.spot(path)?;
        if spot.stat().during("look at it", path)?.is_some() {
            self.clear(&spot, path)?;
        }
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&spot.dir, spot.name, kind, mode, device)
            .during("make the special file", path)?;
        attributes.set_at(&spot, path, true, self.rights, self.given)
    }

    /// A mark that something of the layers below is not there any more.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let (parent, name) = split(path);
        if name == OPAQUE {
            return self.opaque(parent);
        }
        if name.starts_with(b".wh..wh.") {
            // Notes of aufs to itself.
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::entry(path, "a whiteout of nothing"));
        }
        let target = if parent.is_empty() {
            hidden.to_vec()
        } else {
            [parent, b"/", hidden].concat()
        };
        let spot = self.place.spot(&target)?;
        match spot.stat().during("look at it", &target)? {
            None => {
                let mode = Mode::from_raw_mode(0);
                rustix::fs::mknodat(&spot.dir, spot.name, FileType::CharacterDevice, mode, 0)
                    .during("make the whiteout", path)
            }
            // A whiteout speaks of the layers below alone: what this layer has stays, and a directory hides the one below.
            Some(found) if kind(&found) == FileType::Directory => {
                let made = open_made(&spot).during("open the directory", &target)?;
                self.place
                    .make_opaque(&made)
                    .during("mark it opaque", &target)
            }
            Some(_) => Ok(()),
        }
    }

    fn opaque(&mut self, directory: &[u8]) -> Result<(), UnpackError> {
        if directory.is_empty() {
            self.done.opaque_root = true;
            return Ok(());
        }
        // The directory itself may come later, or never.
        let inside = [directory, b"/x"].concat();
        let spot = self.place.spot(&inside)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&spot.dir, ".", flags, Mode::empty())
            .during("open the directory", directory)?;
        self.place
            .make_opaque(&made)
            .during("mark it opaque", directory)
    }

    /// Makes room for another entry of the same name: the later one counts.
    fn clear(&mut self, spot: &Spot<'_>, path: &[u8]) -> Result<(), UnpackError> {
        self.place.forget();
        self.replaced = true;
        let directory = spot
            .stat()
            .during("look at it", path)?
            .is_some_and(|found| kind(&found) == FileType::Directory);
        if !directory {
            return rustix::fs::unlinkat(&spot.dir, spot.name, AtFlags::empty())
                .during("replace it", path);
        }
        self.directories.remove(path);
        match rustix::fs::unlinkat(&spot.dir, spot.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => Err(UnpackError::entry(
                path,
                "the layer has it as a directory with content and as something else",
            )),
            other => other.during("replace it", path),
        }
    }

    fn wait(
        &mut self,
        path: Vec<u8>,
        attributes: Attributes,
        only_times: bool,
    ) -> Result<(), UnpackError> {
        self.waiting += path.len() + 128 + attributes.bytes();
        if self.waiting > WAITING_BYTES {
            let most = WAITING_BYTES as u64;
            return Err(UnpackError::over(Limit::DirectoryNames, most));
        }
        let waiting = Waiting {
            attributes,
            only_times,
        };
        self.directories.insert(path, waiting);
        Ok(())
    }

    /// Gives directories their attributes, the deepest first.
    fn finish_directories(&mut self) -> Result<(), UnpackError> {
        for (path, waiting) in std::mem::take(&mut self.directories).iter().rev() {
            let attributes = &waiting.attributes;
            // What is at this name is still the directory that was made there.
            if waiting.only_times && !self.replaced {
                let spot = self.place.existing(path)?;
                attributes.set_times(&spot, path)?;
                continue;
            }
            match self.place.open_for_attributes(path) {
                Ok(dir) => attributes.set(&dir, path, self.rights)?,
                // Replaced by a later entry, or reached through a symlink of this layer.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => {
                    self.finish_through_links(path, attributes)?;
                }
                Err(errno) => return Err(errno).during("open the directory", path),
            }
        }
        Ok(())
    }

    fn finish_through_links(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let Ok(spot) = self.place.existing(path) else {
            return Ok(());
        };
        match open_made(&spot) {
            Ok(dir) => attributes.set(&dir, path, self.rights),
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).during("open the directory", path),
        }
    }
}

/// Begins to write a file to the disk. That the kernel may forget its copy afterwards is what asks for that; what is not written yet, which is
/// all of it, it keeps.
fn write_behind(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).ok();
}

fn create(spot: &Spot<'_>, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&spot.dir, spot.name, flags, mode)
}

/// Opens a directory that is at this spot, not a symlink to one.
fn open_made(spot: &Spot<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&spot.dir, spot.name, flags, Mode::empty())
}
