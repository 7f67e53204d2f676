//! The list of an unpacked layer's files with their checksums: what `verify` compares, since files on disk have no digest of their own.
//!
//! One record a file: CRC-32 and size, eight hexadecimal digits and sixteen, a blank, the path, NUL. It finds what rots, not who forges.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, SeekFrom};
use towline_oci::Digest;
use towline_sys::fs::{self, At as _, FsError};

use crate::inventory::Walk;
use crate::{Damage, StoreError, inventory};

/// The file beside a layer's `fs`.
pub(crate) const LISTING: &str = "files";
/// A record: the numbers, the longest path, and room to notice that it is longer.
const MAX_RECORD: u64 = 8 << 10;
/// Damaged files of one layer that are told.
const MOST: usize = 100;

/// The checksum of one file, in the making.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    crc: crc32fast::Hasher,
    size: u64,
}

impl Checksum {
    /// Takes in the file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Takes in so many zeros, as a hole is read; in no time however many they are.
    pub fn zeros(&mut self, count: u64) {
        self.size += count;
        let mut left = count;
        let mut power = crc32fast::Hasher::new();
        power.update(&[0]);
        while left > 0 {
            if left & 1 == 1 {
                self.crc.combine(&power);
            }
            left >>= 1;
            if left > 0 {
                let half = power.clone();
                power.combine(&half);
            }
        }
    }

    fn finish(self) -> (u32, u64) {
        (self.crc.finalize(), self.size)
    }
}

/// Writes the list of a layer's files.
#[derive(Debug)]
pub struct Listing(BufWriter<File>);

impl Listing {
    /// Into the file that [`crate::StagedLayer::listing`] gives.
    pub fn new(file: File) -> Self {
        Self(BufWriter::with_capacity(1 << 16, file))
    }

    /// Adds a file. `path` is relative to the layer's root, without symlinks on it.
    pub fn file(&mut self, path: &[u8], checksum: Checksum) -> std::io::Result<()> {
        let (crc, size) = checksum.finish();
        write!(self.0, "{crc:08x}{size:016x} ")?;
        self.0.write_all(path)?;
        self.0.write_all(&[0])
    }

    /// Writes what is left.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Whole,
    Wrong(&'static str),
    /// This process may not read it.
    Closed,
}

/// Makes the list of the layer in `dir` by reading every file of it.
pub(crate) fn write(dir: &Path) -> Result<(), StoreError> {
    let root = dir.join("fs");
    let opened = fs::open(&root)?;
    let mut listing = Listing::new(File::create(dir.join(LISTING)).at("write", dir)?);
    let mut walk = Walk::new(&root).at("walk", &root)?;
    let mut buffer = vec![0; 1 << 17];
    while let Some(item) = walk.step().at("walk", &root)? {
        if item.kind != b'f' {
            continue;
        }
        let read = open(&opened, &item.path).and_then(|mut file| sum(&mut file, &mut buffer));
        match read {
            Err(rustix::io::Errno::ACCESS) => {}
            Err(errno) => return Err(FsError::new("read", &root, errno).into()),
            Ok(checksum) => listing.file(&item.path, checksum).at("write", dir)?,
        }
    }
    Ok(listing.finish().at("write", dir)?)
}

/// What is told of one layer.
struct Told<'a> {
    layer: &'a Digest,
    damage: &'a mut Vec<Damage>,
    paths: HashSet<Vec<u8>>,
}

impl Told<'_> {
    /// Tells one thing of a path; false where there were enough.
    fn tell(&mut self, path: &[u8], problem: impl Into<Cow<'static, str>>) -> bool {
        if self.paths.insert(path.to_vec()) {
            self.damage.push(Damage::File {
                layer: self.layer.clone(),
                path: String::from_utf8_lossy(path).into_owned(),
                problem: problem.into(),
            });
        }
        self.paths.len() < MOST
    }
}

/// Compares the layer in `dir` with its inventory and its files with its list. Gives how much could not be compared: lists that are not there,
/// files and directories that this process may not read.
pub(crate) fn compare(
    dir: &Path,
    layer: &Digest,
    damage: &mut Vec<Damage>,
) -> Result<u64, StoreError> {
    let mut told = Told {
        layer,
        damage,
        paths: HashSet::new(),
    };
    let compared = inventory::compare(dir, &mut |path, problem| told.tell(path, problem))?;
    let mut left = compared.closed + u64::from(compared.none);
    let list = dir.join(LISTING);
    let mut reader = match fs::open(&list) {
        Err(error) if error.is_not_found() => return Ok(left + 1),
        other => BufReader::new(other?),
    };
    let root = fs::open(dir.join("fs"))?;
    let mut buffer = vec![0; 1 << 17];
    while told.paths.len() < MOST {
        let mut record = Vec::new();
        let taken = (&mut reader).take(MAX_RECORD).read_until(0, &mut record);
        if taken.at("read", &list)? == 0 {
            break;
        }
        let Some((crc, size, path)) = parse(&record) else {
            told.tell(LISTING.as_bytes(), "the list itself is damaged");
            break;
        };
        let found = look(&root, path, (crc, size), &mut buffer)
            .map_err(|error| FsError::new("read", dir, error))?;
        match found {
            Found::Whole => {}
            Found::Closed => left += 1,
            Found::Wrong(problem) => {
                told.tell(path, problem);
            }
        }
    }
    Ok(left)
}

fn parse(record: &[u8]) -> Option<(u32, u64, &[u8])> {
    let record = record.strip_suffix(&[0])?;
    let (numbers, path) = record.split_at_checked(25)?;
    let numbers = std::str::from_utf8(numbers).ok()?.strip_suffix(' ')?;
    let (crc, size) = numbers.split_at_checked(8)?;
    Some((
        u32::from_str_radix(crc, 16).ok()?,
        u64::from_str_radix(size, 16).ok()?,
        path,
    ))
}

fn look(
    root: &File,
    path: &[u8],
    listed: (u32, u64),
    buffer: &mut [u8],
) -> rustix::io::Result<Found> {
    let mut file = match open(root, path) {
        Ok(file) => file,
        Err(rustix::io::Errno::ACCESS) => return Ok(Found::Closed),
        Err(
            rustix::io::Errno::NOENT
            | rustix::io::Errno::NOTDIR
            | rustix::io::Errno::LOOP
            | rustix::io::Errno::NXIO,
        ) => return Ok(Found::Wrong("it is not there")),
        Err(errno) => return Err(errno),
    };
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode)
        != rustix::fs::FileType::RegularFile
    {
        return Ok(Found::Wrong("it is not there"));
    }
    match sum(&mut file, buffer) {
        Ok(checksum) if checksum.clone().finish() == listed => Ok(Found::Whole),
        Ok(_) => Ok(Found::Wrong("its bytes are not those that were unpacked")),
        Err(rustix::io::Errno::IO) => Ok(Found::Wrong("the disk cannot read it")),
        Err(errno) => Err(errno),
    }
}

/// Opens a file of a layer by its path, on which no symlink is.
fn open(root: &File, path: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map(File::from)
}

/// The checksum of a file; what is a hole is not read.
fn sum(file: &mut File, buffer: &mut [u8]) -> rustix::io::Result<Checksum> {
    let size = rustix::fs::fstat(&*file)?.st_size.cast_unsigned();
    let mut checksum = Checksum::default();
    while checksum.size < size {
        match rustix::fs::seek(&*file, SeekFrom::Data(checksum.size)) {
            Ok(data) => checksum.zeros(data - checksum.size),
            // Nothing but a hole is left.
            Err(rustix::io::Errno::NXIO) => {
                checksum.zeros(size - checksum.size);
                break;
            }
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
        let hole = rustix::fs::seek(&*file, SeekFrom::Hole(checksum.size)).unwrap_or(size);
        rustix::fs::seek(&*file, SeekFrom::Start(checksum.size))?;
        while checksum.size < hole {
            let most = usize::try_from(hole - checksum.size).unwrap_or(usize::MAX);
            let most = most.min(buffer.len());
            match file.read(&mut buffer[..most]) {
                // It became shorter meanwhile.
                Ok(0) => return Ok(checksum),
                Ok(read) => checksum.update(&buffer[..read]),
                Err(error) => {
                    return Err(
                        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
                    );
                }
            }
        }
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_count_as_if_they_were_read() {
        for count in [0, 1, 2, 3, 511, 4096, 1_000_001] {
            let (mut told, mut read) = (Checksum::default(), Checksum::default());
            told.update(b"begin");
            told.zeros(count);
            told.update(b"end");
            read.update(b"begin");
            read.update(&vec![0; usize::try_from(count).unwrap()]);
            read.update(b"end");
            assert_eq!(told.finish(), read.finish(), "{count}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join(LISTING)).unwrap();
        let mut listing = Listing::new(file);
        let mut checksum = Checksum::default();
        checksum.update(b"123456789");
        listing.file(b"a b/\xff", checksum).unwrap();
        listing.finish().unwrap();
        let bytes = std::fs::read(dir.path().join(LISTING)).unwrap();
        assert_eq!(parse(&bytes), Some((0xcbf4_3926, 9, &b"a b/\xff"[..])));
        assert_eq!(parse(b"cbf43926"), None);
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    }
}
