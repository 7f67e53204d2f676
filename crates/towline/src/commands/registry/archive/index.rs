//! Where in an archive its files are. Names are read once, with bounds, and nothing is ever unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;

/// Files in one archive.
const FILES: usize = 100_000;
/// The longest name, in bytes.
const NAME: u64 = 4096;
/// The longest extended header, in bytes.
const EXTENDED: u64 = 64 << 10;
/// How much larger than a compressed archive its content may be, and how large in any case.
const RATIO: u64 = 100;
const ALWAYS: u64 = 4 << 30;
/// Links that are followed from one file to the next.
const LINKS: usize = 4;
const BLOCK: u64 = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    File { at: u64, size: u64 },
    Link(String),
}

/// An archive whose files can be read in any order.
#[derive(Debug)]
pub(in super::super) struct Archive {
    file: File,
    found: HashMap<String, Found>,
}

/// A part of a file, for reading.
pub(in super::super) type Part = io::Take<File>;

impl Archive {
    /// Reads the names of an archive, which may be compressed with gzip. Blocks.
    pub(in super::super) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut magic = [0; 2];
        let length = file.metadata()?.len();
        if length >= 2 {
            file.read_exact(&mut magic)?;
            file.rewind()?;
        }
        if magic == [0x1f, 0x8b] {
            file = decompressed(file, length)
                .with_context(|| format!("decompress {}", path.display()))?;
        }
        let found = index(&mut file).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { file, found })
    }

    /// The place of a file, whose name may be that of a link to it.
    fn place(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name.strip_prefix("./").unwrap_or(name).to_owned();
        for _ in 0..=LINKS {
            match self.found.get(&name)? {
                Found::File { at, size } => return Some((*at, *size)),
                Found::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// The size of a file, if it is there.
    pub(in super::super) fn size(&self, name: &str) -> Option<u64> {
        self.place(name).map(|(_, size)| size)
    }

    /// A file for reading. Only one is read at a time.
    pub(in super::super) fn open_part(&self, name: &str) -> anyhow::Result<Part> {
        let place = self.place(name);
        let (at, size) = place.with_context(|| format!("the archive holds no file {name:?}"))?;
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(at))?;
        Ok(file.take(size))
    }

    /// A small file.
    pub(in super::super) fn read(&self, name: &str, most: usize) -> anyhow::Result<Bytes> {
        let mut part = self.open_part(name)?;
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        ensure!(part.limit() <= limit, "{name:?} has more than {most} bytes");
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// The content of a compressed archive, in a file without a name.
fn decompressed(file: File, length: u64) -> anyhow::Result<File> {
    let most = length.saturating_mul(RATIO).max(ALWAYS);
    let mut out = tempfile::tempfile().context("make a temporary file")?;
    let mut reader = GzDecoder::new(io::BufReader::new(file)).take(most + 1);
    let written = io::copy(&mut reader, &mut out)?;
    ensure!(written <= most, "it has more than {most} bytes");
    out.rewind()?;
    Ok(out)
}

/// A name as it is looked up: below the archive's top, or refused.
fn clean(name: &str) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    ensure!(!name.starts_with('/'), "the name {name:?} is absolute");
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                ensure!(
                    parts.pop().is_some(),
                    "the name {name:?} leads out of the archive"
                );
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn index(file: &mut File) -> anyhow::Result<HashMap<String, Found>> {
    let length = file.metadata()?.len();
    let mut found = HashMap::new();
    let mut at = 0;
    let (mut long_name, mut long_link) = (None, None);
    while at + BLOCK <= length {
        let mut block = [0; 512];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let header = tar::Header::from_byte_slice(&block);
        ensure!(
            sums_up(&block, header)?,
            "this is no tar archive, or a damaged one"
        );
        let size = header.entry_size()?;
        let data = at + BLOCK;
        let end = data.checked_add(size).filter(|end| *end <= length);
        let end = end.context("the archive is cut")?;
        at = end.next_multiple_of(BLOCK);
        let kind = header.entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            ensure!(size <= NAME, "a name has {size} bytes");
            let text = text(file, data, size)?;
            let text = text.trim_end_matches('\0').to_owned();
            *(if kind.is_gnu_longname() {
                &mut long_name
            } else {
                &mut long_link
            }) = Some(text);
            continue;
        }
        if kind.is_pax_local_extensions() {
            ensure!(size <= EXTENDED, "an extended header has {size} bytes");
            for (key, value) in pax(&text(file, data, size)?) {
                match key {
                    "path" => long_name = Some(value.to_owned()),
                    "linkpath" => long_link = Some(value.to_owned()),
                    // The size in the header is then not the true one, and what follows cannot be found.
                    "size" => ensure!(false, "an extended header changes a size"),
                    _ => {}
                }
            }
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let own = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let name = clean(&long_name.take().unwrap_or(own))?;
        let link = header.link_name_bytes();
        let link = link.map(|link| String::from_utf8_lossy(&link).into_owned());
        let link = long_link.take().or(link).unwrap_or_default();
        let one = if kind.is_file() || kind.is_contiguous() {
            Found::File { at: data, size }
        } else if kind.is_symlink() {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            ensure!(
                !link.starts_with('/'),
                "the link {name:?} leads out of the archive"
            );
            Found::Link(clean(format!("{folder}/{link}").trim_start_matches('/'))?)
        } else if kind.is_hard_link() {
            Found::Link(clean(&link)?)
        } else if kind.is_dir() {
            continue;
        } else {
            bail!("{name:?} is neither a file nor a link");
        };
        ensure!(
            found.len() < FILES,
            "the archive holds more than {FILES} files"
        );
        // Which of two is meant would depend on who reads it.
        ensure!(
            found.insert(name.clone(), one).is_none(),
            "the archive holds {name:?} twice"
        );
    }
    Ok(found)
}

fn text(file: &mut File, at: u64, size: u64) -> anyhow::Result<String> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).context("a name is not valid UTF-8")
}

/// Whether the header's sum is right.
fn sums_up(block: &[u8; 512], header: &tar::Header) -> anyhow::Result<bool> {
    let own = block[..148].iter().chain(&block[156..]);
    let sum: u32 = own.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    Ok(header.cksum().context("this is no tar archive")? == sum)
}

/// The records of an extended header: `LENGTH KEY=VALUE\n`.
fn pax(text: &str) -> Vec<(&str, &str)> {
    let mut rest = text;
    let mut all = Vec::new();
    while let Some((length, _)) = rest.split_once(' ') {
        let Ok(whole) = length.parse::<usize>() else {
            break;
        };
        let Some(record) = rest.get(length.len() + 1..whole) else {
            break;
        };
        if let Some((key, value)) = record.trim_end_matches('\n').split_once('=') {
            all.push((key, value));
        }
        rest = rest.get(whole..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn header(kind: tar::EntryType, name: &[u8], link: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn archive(entries: &[(tar::EntryType, &str, &str, &[u8])]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (kind, name, link, bytes) in entries {
            let header = header(*kind, name.as_bytes(), link, bytes.len() as u64);
            file.write_all(header.as_bytes()).unwrap();
            file.write_all(bytes).unwrap();
            let rest = bytes.len().next_multiple_of(512) - bytes.len();
            file.write_all(&vec![0; rest]).unwrap();
        }
        file.write_all(&[0; 1024]).unwrap();
        file
    }

    use tar::EntryType as Kind;

    #[test]
    fn files_and_links_are_found() {
        let long = "x".repeat(200);
        let file = archive(&[
            (Kind::Directory, "a/", "", b""),
            (Kind::Regular, "a/layer.tar", "", b"bytes"),
            (Kind::Symlink, "b/layer.tar", "../a/layer.tar", b""),
            (Kind::Link, "c", "b/layer.tar", b""),
            (Kind::Symlink, "loop", "loop", b""),
            (Kind::GNULongName, "././@LongLink", "", long.as_bytes()),
            (Kind::Regular, "short", "", b"long"),
            (Kind::XHeader, "pax", "", b"16 path=a/other\n"),
            (Kind::Regular, "ustar", "", b"pax"),
        ]);
        let mut zipped = tempfile::NamedTempFile::new().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(&mut zipped, flate2::Compression::fast());
        encoder
            .write_all(&std::fs::read(file.path()).unwrap())
            .unwrap();
        encoder.finish().unwrap();
        for path in [file.path(), zipped.path()] {
            let archive = Archive::open(path).unwrap();
            for name in ["a/layer.tar", "./a/layer.tar", "b/layer.tar", "c"] {
                assert_eq!(archive.read(name, 10).unwrap(), "bytes", "{name}");
            }
            assert_eq!(archive.read(&long, 10).unwrap(), "long");
            assert_eq!(archive.read("a/other", 10).unwrap(), "pax");
            assert!(archive.read("a/layer.tar", 4).is_err());
            for name in ["loop", "a", "nothing", "short"] {
                assert_eq!(archive.size(name), None, "{name}");
            }
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let long = vec![b'x'; 5000];
        let huge = vec![b'x'; 70_000];
        for (entry, expected) in [
            (
                (Kind::Regular, "../../etc/passwd", "", &b""[..]),
                "leads out",
            ),
            ((Kind::Regular, "/etc/passwd", "", b""), "absolute"),
            ((Kind::Symlink, "a", "/etc/passwd", b""), "leads out"),
            ((Kind::Symlink, "a/b", "../../etc", b""), "leads out"),
            ((Kind::Link, "a", "../etc", b""), "leads out"),
            ((Kind::Char, "a", "", b""), "neither"),
            ((Kind::GNUSparse, "a", "", b""), "neither"),
            ((Kind::GNULongName, "a", "", &long), "a name has"),
            ((Kind::XHeader, "a", "", &huge), "an extended header has"),
            ((Kind::XHeader, "a", "", b"11 size=10\n"), "changes a size"),
            ((Kind::Regular, "twice", "", b""), "twice"),
        ] {
            let file = archive(&[(Kind::Regular, "twice", "", b""), entry]);
            let said = format!("{:#}", Archive::open(file.path()).unwrap_err());
            assert!(said.contains(expected), "{:?}: {said}", entry.1);
        }
        let mut cut = tempfile::NamedTempFile::new().unwrap();
        cut.write_all(header(Kind::Regular, b"a", "", 1 << 40).as_bytes())
            .unwrap();
        let said = format!("{:#}", Archive::open(cut.path()).unwrap_err());
        assert!(said.contains("is cut"), "{said}");
        let mut other = tempfile::NamedTempFile::new().unwrap();
        other.write_all(&[7; 2048]).unwrap();
        assert!(Archive::open(other.path()).is_err());
    }
}
