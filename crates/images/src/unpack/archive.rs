//! A strict reader of tar archives: ustar, old, GNU long names and sparse files, pax.
//!
//! Where two readers could see two archives in the same bytes (a size or a name given twice and differently, a broken header, a record that
//! does not fit) it stops; it never looks for the next header that might be good.

use std::io::BufRead;

use tar::Header;

use super::error::{UnpackError, shown};
use super::number;
use super::pax::{Pax, PaxFault, decimal, header_time};
use super::sparse::{Form, Map, Records, Sparse};
use crate::Ceilings;
use crate::ceilings::Limit;

const BLOCK: usize = 512;
/// Where the map of a sparse file is in an old header, and how long it is in each block behind that, before the byte that says whether another
/// follows.
const OLD_MAP: std::ops::Range<usize> = 386..482;
const MORE_MAP: usize = 504;
/// Digits of a number of 64 bits.
const DIGITS: usize = 20;
/// Sizes from here on do not fit the octal field of a header.
const OCTAL_END: u64 = 1 << 33;

/// An archive that is read from front to back.
pub(crate) struct Archive<'a, R> {
    input: R,
    ceilings: &'a Ceilings,
    at: u64,
    /// Bytes of the current entry's content that were not read yet.
    content: u64,
    /// Bytes that fill its last block.
    padding: u64,
    /// Headers read, extended ones too.
    headers: u64,
    /// Bytes of all sparse files with their holes.
    hollow: u64,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The path as written.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Where the bytes of a file with holes go.
    pub(crate) sparse: Option<Sparse>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File { size: u64 },
    HardLink { target: Vec<u8> },
    Symlink { target: Vec<u8> },
    Directory,
    Fifo,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// Extended headers that wait for their entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<'a, R: BufRead> Archive<'a, R> {
    pub(crate) fn new(input: R, ceilings: &'a Ceilings) -> Self {
        Self {
            input,
            ceilings,
            at: 0,
            content: 0,
            padding: 0,
            headers: 0,
            hollow: 0,
        }
    }

    /// The next entry; what is left of the one before is passed over. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut pending = Pending::default();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                return if pending.is_empty() {
                    Ok(None)
                } else {
                    Err(self.malformed("it ends after an extended header"))
                };
            };
            self.headers += 1;
            if self.headers > self.ceilings.entries.saturating_mul(2) {
                let most = self.ceilings.entries.saturating_mul(2);
                return Err(UnpackError::over(Limit::Headers, most));
            }
            let header = Header::from_byte_slice(&block);
            check_sum(&block).map_err(|why| self.malformed(why))?;
            let size =
                number::unsigned(&header.as_old().size).map_err(|why| self.malformed(why))?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let bytes = self.extended(size, pending.pax.is_some())?;
                    pending.pax = Some(self.pax(&bytes)?);
                }
                b'g' => {
                    let bytes = self.extended(size, false)?;
                    if self.pax(&bytes)?.matters_globally() {
                        return Err(unsupported(
                            "a header for the whole archive that names, sizes or owns entries",
                        ));
                    }
                }
                b'L' => {
                    let bytes = self.extended(size, pending.long_name.is_some())?;
                    pending.long_name = Some(until_nul(&bytes).to_vec());
                }
                b'K' => {
                    let bytes = self.extended(size, pending.long_link.is_some())?;
                    pending.long_link = Some(until_nul(&bytes).to_vec());
                }
                flag => return self.entry(header, flag, size, pending).map(Some),
            }
        }
    }

    /// A piece of what is left of the current entry's content, for [`Archive::took`]; empty at its end.
    pub(crate) fn piece(&mut self) -> Result<&[u8], UnpackError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.content).unwrap_or(usize::MAX);
        let (at, input) = (self.at, &mut self.input);
        let piece = input.fill_buf().map_err(UnpackError::from_read)?;
        if piece.is_empty() {
            return Err(UnpackError::Archive {
                at,
                problem: "it ends inside an entry".to_owned(),
            });
        }
        Ok(&piece[..piece.len().min(most)])
    }

    /// Passes over bytes that [`Archive::piece`] gave.
    pub(crate) fn took(&mut self, amount: usize) {
        self.input.consume(amount);
        self.content -= amount as u64;
        self.at += amount as u64;
    }

    /// Reads what follows the end of the archive, so that all bytes were seen.
    pub(crate) fn drain(&mut self) -> Result<(), UnpackError> {
        loop {
            let length = self.input.fill_buf().map_err(UnpackError::from_read)?.len();
            if length == 0 {
                return Ok(());
            }
            self.input.consume(length);
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        flag: u8,
        header_size: u64,
        pending: Pending,
    ) -> Result<Entry, UnpackError> {
        let Pending {
            pax,
            long_name,
            long_link,
        } = pending;
        let pax = pax.unwrap_or_default();
        let path = match pax.holes.as_ref().and_then(|holes| holes.name.clone()) {
            Some(real) => real,
            None => self.one(pax.path, long_name, &header.path_bytes())?,
        };
        let link = header.link_name_bytes().unwrap_or_default();
        let target = self.one(pax.linkpath, long_link, &link)?;
        let size = match pax.size {
            Some(size) if size != header_size && size < OCTAL_END => {
                return Err(UnpackError::entry(
                    &path,
                    format!(
                        "its extended header says {size} bytes, its header {header_size}: two readers would see two archives"
                    ),
                ));
            }
            Some(size) => size,
            None => header_size,
        };
        let kind = kind_of(header, flag, &path, target, size)?;
        let old_map = match flag {
            b'S' => Some(self.old_map(header, &path)?),
            _ => None,
        };
        if let Kind::File { size } = kind {
            self.content = size;
            self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        } else if size != 0 {
            return Err(UnpackError::entry(
                &path,
                "it has content although it is not a file",
            ));
        }
        let sparse = self.sparse(&kind, &path, old_map, pax.holes)?;
        let old = header.as_old();
        let bad = |why: &'static str| UnpackError::entry(&path, why);
        let mode = number::unsigned(&old.mode).map_err(bad)?;
        Ok(Entry {
            kind,
            sparse,
            // The type bits that some writers leave in are of no use.
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid: pax
                .uid
                .map_or_else(|| number::unsigned(&old.uid), Ok)
                .map_err(bad)?,
            gid: pax
                .gid
                .map_or_else(|| number::unsigned(&old.gid), Ok)
                .map_err(bad)?,
            mtime: pax
                .mtime
                .map_or_else(|| header_time(&old.mtime), Ok)
                .map_err(bad)?,
            xattrs: pax.xattrs,
            path,
        })
    }

    /// Where the bytes of a file with holes go; `old` is what its header says of it.
    fn sparse(
        &mut self,
        kind: &Kind,
        path: &[u8],
        old: Option<(Map<'_>, u64)>,
        holes: Option<Records>,
    ) -> Result<Option<Sparse>, UnpackError> {
        let (map, size) = match (old, holes) {
            (None, None) => return Ok(None),
            (Some(old), None) => old,
            (Some((map, _)), Some(_)) => return Err(map.wrong("is there twice")),
            (None, Some(_)) if !matches!(kind, Kind::File { .. }) => {
                return Err(UnpackError::entry(path, "it has holes and is not a file"));
            }
            (None, Some(holes)) => {
                let mut map = Map::of(path);
                let size = match holes.read(&mut map)? {
                    Form::Here(size) => size,
                    Form::InContent(size) => {
                        self.map_in_content(&mut map)?;
                        size
                    }
                };
                (map, size)
            }
        };
        let sparse = map.finish(size, self.content)?;
        // Holes cost nothing on the disk, but whoever copies the file has them all.
        self.hollow = self.hollow.saturating_add(size);
        if self.hollow > self.ceilings.layer_bytes {
            return Err(UnpackError::Ceiling {
                limit: Limit::SparseBytes,
                name: shown(path),
                ceiling: self.ceilings.layer_bytes,
            });
        }
        Ok(Some(sparse))
    }

    /// The map of an old header and of the blocks behind it, and the file's size with its holes.
    fn old_map<'p>(
        &mut self,
        header: &Header,
        path: &'p [u8],
    ) -> Result<(Map<'p>, u64), UnpackError> {
        let mut map = Map::of(path);
        let Some(gnu) = header.as_gnu() else {
            return Err(map.wrong("is not in a header of GNU tar"));
        };
        let size = number::unsigned(&gnu.realsize).map_err(|why| map.wrong(why))?;
        let mut ended = map.push_old(&header.as_bytes()[OLD_MAP])?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            if ended {
                return Err(map.wrong("goes on after its end"));
            }
            let mut block = [0; BLOCK];
            self.exactly(&mut block)?;
            ended = map.push_old(&block[..MORE_MAP])?;
            more = block[MORE_MAP] != 0;
        }
        Ok((map, size))
    }

    /// The map at the beginning of the content, in whole blocks: how many pieces, then place and length of each, a line a number.
    fn map_in_content(&mut self, map: &mut Map<'_>) -> Result<(), UnpackError> {
        let whole = self.content;
        let count = self.line(map)?;
        for _ in 0..count {
            let at = self.line(map)?;
            let len = self.line(map)?;
            map.push(at, len)?;
        }
        let mut rest = (BLOCK as u64 - (whole - self.content) % BLOCK as u64) % BLOCK as u64;
        while rest > 0 {
            let length = self
                .piece()?
                .len()
                .min(usize::try_from(rest).unwrap_or(BLOCK));
            if length == 0 {
                return Err(map.wrong("is cut"));
            }
            self.took(length);
            rest -= length as u64;
        }
        Ok(())
    }

    /// A number on a line of its own in the content.
    fn line(&mut self, map: &Map<'_>) -> Result<u64, UnpackError> {
        let mut digits = Vec::new();
        loop {
            let Some(byte) = self.piece()?.first().copied() else {
                return Err(map.wrong("is cut"));
            };
            self.took(1);
            if byte == b'\n' {
                return decimal(&digits).map_err(|why| map.wrong(&why));
            }
            digits.push(byte);
            if digits.len() > DIGITS {
                return Err(map.wrong("has a line that is no number"));
            }
        }
    }

    /// The name that counts, of three places it can be in. Two long ones that differ are two archives.
    fn one(
        &self,
        pax: Option<Vec<u8>>,
        long: Option<Vec<u8>>,
        short: &[u8],
    ) -> Result<Vec<u8>, UnpackError> {
        match (pax, long) {
            (Some(pax), Some(long)) if pax != long => {
                Err(self.malformed("an entry has two long names that differ"))
            }
            (Some(name), _) | (None, Some(name)) => Ok(name),
            (None, None) => Ok(short.to_vec()),
        }
    }

    fn pax(&self, bytes: &[u8]) -> Result<Pax, UnpackError> {
        Pax::parse(bytes, self.ceilings).map_err(|fault| match fault {
            PaxFault::Malformed(why) => self.malformed(why),
            PaxFault::Over {
                limit,
                name,
                ceiling,
            } => UnpackError::Ceiling {
                limit,
                name,
                ceiling,
            },
        })
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64, doubled: bool) -> Result<Vec<u8>, UnpackError> {
        if doubled {
            return Err(self.malformed("an entry has two extended headers of one kind"));
        }
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length > self.ceilings.header_bytes {
            let most = self.ceilings.header_bytes as u64;
            return Err(UnpackError::over(Limit::HeaderBytes, most));
        }
        let mut bytes = vec![0; length.next_multiple_of(BLOCK)];
        self.exactly(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Passes over what is left of the current entry.
    fn skip(&mut self) -> Result<(), UnpackError> {
        loop {
            let length = self.piece()?.len();
            if length == 0 {
                break;
            }
            self.took(length);
        }
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or_default();
        if padding > 0 {
            self.exactly(&mut [0; BLOCK][..padding])?;
        }
        Ok(())
    }

    /// The next header; `None` after two blocks of zeros, or where the input ends between entries.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        if !self.fill(&mut block)? || block == [0; BLOCK] {
            return Ok(None);
        }
        Err(self.malformed("one block of zeros is followed by something else"))
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        if self.fill(buffer)? {
            Ok(())
        } else {
            Err(self.malformed("it ends too early"))
        }
    }

    /// Fills the buffer; false where the input has ended just here.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = self
                .input
                .read(&mut buffer[filled..])
                .map_err(UnpackError::from_read)?;
            self.at += read as u64;
            filled += read;
            if read == 0 && filled == 0 {
                return Ok(false);
            }
            if read == 0 {
                return Err(self.malformed("it ends in the middle of a block"));
            }
        }
        Ok(true)
    }

    fn malformed(&self, problem: impl Into<String>) -> UnpackError {
        UnpackError::Archive {
            at: self.at,
            problem: problem.into(),
        }
    }
}

fn kind_of(
    header: &Header,
    flag: u8,
    path: &[u8],
    target: Vec<u8>,
    size: u64,
) -> Result<Kind, UnpackError> {
    let slash = path.ends_with(b"/");
    let device = || device_numbers(header).map_err(|why| UnpackError::entry(path, why));
    Ok(match flag {
        0 if slash => Kind::Directory,
        0 | b'0' | b'7' | b'S' if !slash => Kind::File { size },
        b'0' | b'7' | b'S' => {
            return Err(UnpackError::entry(path, "a file's name ends in a slash"));
        }
        b'1' => Kind::HardLink { target },
        b'2' => Kind::Symlink { target },
        b'3' => device().map(|(major, minor)| Kind::Char { major, minor })?,
        b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(UnpackError::Unsupported {
                path: shown(path),
                what: format!("entry type {:?}", char::from(other)),
            });
        }
    })
}

fn unsupported(what: &str) -> UnpackError {
    UnpackError::Unsupported {
        path: String::new(),
        what: what.to_owned(),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// The sum over a header, its own field counted as blanks; old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stated = number::field(&block[148..156])?;
    let blanks = 8 * i64::from(b' ');
    let unsigned = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    let sum = i64::from(unsigned(&block[..148]) + unsigned(&block[156..]));
    let signed = || {
        let bytes = block[..148].iter().chain(&block[156..]);
        bytes.map(|b| i64::from(b.cast_signed())).sum::<i64>()
    };
    if stated == sum + blanks || stated == signed() + blanks {
        Ok(())
    } else {
        Err("a header's checksum is wrong")
    }
}

fn device_numbers(header: &Header) -> Result<(u32, u32), &'static str> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err("an old header cannot describe a device"),
    };
    let read = |field: &[u8]| {
        u32::try_from(number::unsigned(field)?).map_err(|_| "a device number is too large")
    };
    Ok((read(major)?, read(minor)?))
}
