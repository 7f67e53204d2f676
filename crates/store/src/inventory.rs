//! What a layer's directory holds besides the bytes of its files: every name with kind, mode, owner, target and extended attributes, as they
//! were when the layer was whole. `verify` walks again and compares: what is missing, what was added, what is different.
//!
//! Two strings a name, each ended by NUL: `<kind><mode, octal> <user> <group> <device> <CRC-32 of the attributes> <path>` and a symlink's
//! target. In the order of a walk that takes a directory before its content and names by their bytes.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use towline_sys::fs::{self, At as _};

use crate::StoreError;

/// The file beside a layer's `fs`.
pub(crate) const INVENTORY: &str = "inventory";
/// A path or a target, and room for the numbers.
const MAX_STRING: u64 = 8 << 10;
/// Directories that are open at once; a layer has fewer on one path.
const MAX_DEPTH: usize = 4096;
/// Bytes of all names, or of one value, of extended attributes that are looked at.
const MAX_XATTR: usize = 64 << 10;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: u8,
    mode: u32,
    owner: (u32, u32),
    device: u64,
    xattrs: u32,
    target: Vec<u8>,
}

/// A directory that is open, and what is left of its names, the last one first.
struct Level {
    dir: OwnedFd,
    path: Vec<u8>,
    names: Vec<Vec<u8>>,
}

/// A walk over a layer. No symlink is followed.
pub(crate) struct Walk {
    levels: Vec<Level>,
    /// Directories that this process may not read.
    pub(crate) closed: u64,
}

impl Walk {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let dir = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        let names = names(&dir)?;
        let path = Vec::new();
        Ok(Self {
            levels: vec![Level { dir, path, names }],
            closed: 0,
        })
    }

    /// The directory of the item that came last but was no directory itself; for reading it.
    fn open_level(&mut self, item: &Item, name: &[u8]) -> io::Result<()> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let opened = rustix::fs::openat(
            &level.dir,
            OsStr::from_bytes(name),
            DIRECTORY | OFlags::NOFOLLOW,
            Mode::empty(),
        );
        let dir = match opened {
            Err(Errno::ACCESS) => {
                self.closed += 1;
                return Ok(());
            }
            other => other?,
        };
        if self.levels.len() == MAX_DEPTH {
            return Err(io::Error::other("directories are too deep"));
        }
        let names = names(&dir)?;
        let path = item.path.clone();
        self.levels.push(Level { dir, path, names });
        Ok(())
    }

    /// The next name; `None` at the end.
    pub(crate) fn step(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                return Ok(None);
            };
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            let os = OsStr::from_bytes(&name);
            let stat = match rustix::fs::statat(&level.dir, os, AtFlags::SYMLINK_NOFOLLOW) {
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                // A directory whose names may be read, and nothing of what they name.
                Err(Errno::ACCESS) => {
                    self.closed += 1;
                    level.names.clear();
                    continue;
                }
                other => other?,
            };
            let mut path = level.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&name);
            let item = item(&level.dir, os, path, &stat)?;
            if item.kind == b'd' {
                self.open_level(&item, &name)?;
            }
            return Ok(Some(item));
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    // Not `read_from`, which opens the directory once more by a name in it: names may be readable that lead nowhere.
    for entry in rustix::fs::Dir::new(dir.try_clone()?)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn item(dir: &OwnedFd, name: &OsStr, path: Vec<u8>, stat: &Stat) -> io::Result<Item> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => b'd',
        FileType::RegularFile => b'f',
        FileType::Symlink => b'l',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Fifo => b'p',
        _ => b's',
    };
    let target = if kind == b'l' {
        rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()
    } else {
        Vec::new()
    };
    Ok(Item {
        kind,
        // That of a symlink means nothing.
        mode: if kind == b'l' {
            0
        } else {
            stat.st_mode & 0o7777
        },
        owner: (stat.st_uid, stat.st_gid),
        device: match kind {
            b'c' | b'b' => stat.st_rdev,
            _ => 0,
        },
        xattrs: xattrs(dir, name),
        target,
        path,
    })
}

/// The checksum of the extended attributes that an unpacking sets; 0 where there is none or they cannot be read.
fn xattrs(dir: &OwnedFd, name: &OsStr) -> u32 {
    // There is no call with a directory's descriptor for this.
    let path = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    let mut list = [0_u8; 256];
    let mut large;
    let found = match rustix::fs::llistxattr(&path, &mut list[..]) {
        Ok(length) => &list[..length],
        Err(Errno::RANGE) => {
            large = vec![0; MAX_XATTR];
            match rustix::fs::llistxattr(&path, &mut large[..]) {
                Ok(length) => &large[..length],
                Err(_) => return 0,
            }
        }
        Err(_) => return 0,
    };
    let mut known: Vec<&[u8]> = found
        .split(|byte| *byte == 0)
        .filter(|name| is_ours(name))
        .collect();
    if known.is_empty() {
        return 0;
    }
    known.sort_unstable();
    let mut sum = crc32fast::Hasher::new();
    let mut value = vec![0; MAX_XATTR];
    for name in known {
        let read = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value[..]);
        sum.update(name);
        sum.update(&[0]);
        sum.update(&value[..read.unwrap_or_default()]);
        sum.update(&[0]);
    }
    sum.finalize()
}

/// Not those that the machine's own policies keep.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || matches!(name, b"security.capability" | b"trusted.overlay.opaque")
}

/// Writes the inventory of the layer in `dir`.
pub(crate) fn write(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(INVENTORY);
    let mut out = BufWriter::with_capacity(1 << 16, File::create(&path).at("create", &path)?);
    let root = dir.join("fs");
    let mut walk = Walk::new(&root).at("walk", &root)?;
    while let Some(item) = walk.step().at("walk", &root)? {
        item.write(&mut out).at("write", &path)?;
    }
    Ok(out.flush().at("write", &path)?)
}

impl Item {
    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let (kind, (user, group)) = (char::from(self.kind), self.owner);
        write!(
            out,
            "{kind}{:o} {user} {group} {:x} {:x} ",
            self.mode, self.device, self.xattrs
        )?;
        out.write_all(&self.path)?;
        out.write_all(&[0])?;
        out.write_all(&self.target)?;
        out.write_all(&[0])
    }

    fn parse(record: &[u8], target: Vec<u8>) -> Option<Self> {
        let mut fields = record.splitn(6, |byte| *byte == b' ');
        let mut field = || std::str::from_utf8(fields.next()?).ok();
        let (kind, mode) = field()?.split_at_checked(1)?;
        let numbers = (field()?, field()?, field()?, field()?);
        Some(Self {
            kind: kind.as_bytes()[0],
            mode: u32::from_str_radix(mode, 8).ok()?,
            owner: (numbers.0.parse().ok()?, numbers.1.parse().ok()?),
            device: u64::from_str_radix(numbers.2, 16).ok()?,
            xattrs: u32::from_str_radix(numbers.3, 16).ok()?,
            path: fields.next()?.to_vec(),
            target,
        })
    }

    /// What is different in `now`, in words.
    fn differs(&self, now: &Self) -> Option<String> {
        let kind = |item: &Self| match item.kind {
            b'd' => "a directory",
            b'f' => "a file",
            b'l' => "a symlink",
            b'c' | b'b' => "a device",
            b'p' => "a FIFO",
            _ => "a socket",
        };
        let owner = |(user, group): (u32, u32)| format!("{user}:{group}");
        let target = |item: &Self| String::from_utf8_lossy(&item.target).into_owned();
        Some(if self.kind != now.kind {
            format!("it is {} and was {}", kind(now), kind(self))
        } else if self.mode != now.mode {
            format!("its mode is {:o} and was {:o}", now.mode, self.mode)
        } else if self.owner != now.owner {
            format!(
                "its owner is {} and was {}",
                owner(now.owner),
                owner(self.owner)
            )
        } else if self.target != now.target {
            format!(
                "it leads to {:?} and led to {:?}",
                target(now),
                target(self)
            )
        } else if self.device != now.device {
            "it is another device".to_owned()
        } else if self.xattrs != now.xattrs {
            "its extended attributes are others".to_owned()
        } else {
            return None;
        })
    }
}

/// How far a comparison came.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Directories that this process may not read.
    pub(crate) closed: u64,
    /// There is no inventory.
    pub(crate) none: bool,
}

/// Compares the layer in `dir` with its inventory. `tell` is given path and problem, and answers whether it wants more.
pub(crate) fn compare(
    dir: &Path,
    tell: &mut dyn FnMut(&[u8], String) -> bool,
) -> Result<Compared, StoreError> {
    let path = dir.join(INVENTORY);
    let mut reader = match fs::open(&path) {
        Err(error) if error.is_not_found() => {
            return Ok(Compared {
                none: true,
                ..Compared::default()
            });
        }
        other => BufReader::new(other?),
    };
    let root = dir.join("fs");
    let mut walk = Walk::new(&root).at("walk", &root)?;
    let next = |reader: &mut BufReader<File>| read(reader).at("read", &path);
    let (mut was, mut is) = (next(&mut reader)?, walk.step().at("walk", &root)?);
    loop {
        let order = match (&was, &is) {
            (Read::Damaged, _) => {
                tell(
                    INVENTORY.as_bytes(),
                    "the inventory itself is damaged".into(),
                );
                break;
            }
            (Read::End, None) => break,
            (Read::End, Some(_)) => Ordering::Greater,
            (Read::Item(_), None) => Ordering::Less,
            (Read::Item(was), Some(is)) => order(&was.path, &is.path),
        };
        let wants = match (order, &was, &is) {
            (Ordering::Less, Read::Item(was), _) => tell(&was.path, "it is not there".into()),
            (Ordering::Greater, _, Some(is)) => tell(&is.path, "it was not unpacked".into()),
            (Ordering::Equal, Read::Item(was), Some(is)) => was
                .differs(is)
                .is_none_or(|problem| tell(&is.path, problem)),
            _ => true,
        };
        if !wants {
            break;
        }
        if order != Ordering::Greater {
            was = next(&mut reader)?;
        }
        if order != Ordering::Less {
            is = walk.step().at("walk", &root)?;
        }
    }
    Ok(Compared {
        closed: walk.closed,
        none: false,
    })
}

/// As the walk goes: name by name.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    let names = |path: &'_ [u8]| {
        path.split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    names(one).cmp(&names(other))
}

enum Read {
    Item(Item),
    End,
    Damaged,
}

fn read(reader: &mut BufReader<File>) -> io::Result<Read> {
    let mut record = Vec::new();
    if reader
        .by_ref()
        .take(MAX_STRING)
        .read_until(0, &mut record)?
        == 0
    {
        return Ok(Read::End);
    }
    let mut target = Vec::new();
    reader
        .by_ref()
        .take(MAX_STRING)
        .read_until(0, &mut target)?;
    let whole = record.pop() == Some(0) && target.pop() == Some(0);
    let item = Item::parse(&record, target).filter(|_| whole);
    Ok(item.map_or(Read::Damaged, Read::Item))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn layer() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("fs");
        std::fs::create_dir_all(root.join("a/inner")).unwrap();
        // `a-b` sorts before `a/` by bytes and after it name by name.
        for file in ["a-b", "a/inner/file", "a.b", "z\u{e4} \n", "a/last"] {
            std::fs::write(root.join(file), "x").unwrap();
        }
        symlink("a/last", root.join("link")).unwrap();
        std::fs::set_permissions(root.join("a-b"), PermissionsExt::from_mode(0o644)).unwrap();
        write(dir.path()).unwrap();
        dir
    }

    fn problems(dir: &Path) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let compared = compare(dir, &mut |path, problem| {
            all.push((String::from_utf8_lossy(path).into_owned(), problem));
            true
        });
        assert!(!compared.unwrap().none);
        all
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let dir = layer();
        assert_eq!(problems(dir.path()), []);
        let root = dir.path().join("fs");
        std::fs::set_permissions(root.join("a-b"), PermissionsExt::from_mode(0o4755)).unwrap();
        std::fs::remove_dir_all(root.join("a/inner")).unwrap();
        std::fs::write(root.join("a/more"), "").unwrap();
        std::fs::remove_file(root.join("link")).unwrap();
        symlink("elsewhere", root.join("link")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("a.b"), "user.x", b"y", flags).unwrap();
        std::fs::remove_file(root.join("a/last")).unwrap();
        std::fs::create_dir(root.join("a/last")).unwrap();
        let problems = problems(dir.path());
        let problems: Vec<_> = problems
            .iter()
            .map(|(path, problem)| (path.as_str(), problem.as_str()))
            .collect();
        let want = [
            ("a/inner", "it is not there"),
            ("a/inner/file", "it is not there"),
            ("a/last", "it is a directory and was a file"),
            ("a/more", "it was not unpacked"),
            ("a-b", "its mode is 4755 and was 644"),
            ("a.b", "its extended attributes are others"),
            ("link", "it leads to \"elsewhere\" and led to \"a/last\""),
        ];
        assert_eq!(problems, want);
    }

    #[test]
    fn an_inventory_that_rotted_says_so() {
        let dir = layer();
        let path = dir.path().join(INVENTORY);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let problems = problems(dir.path());
        assert!(
            problems.iter().any(|(path, _)| path == INVENTORY),
            "{problems:?}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(compare(dir.path(), &mut |_, _| true).unwrap().none);
    }
}
