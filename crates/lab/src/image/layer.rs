//! One layer: entries in order, as a tar archive, compressed or not.

use std::io::Write as _;

use bytes::Bytes;
use tar::{EntryType, Header};

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// One gzip member.
    #[default]
    Gzip,
    /// One zstd frame.
    Zstd,
    /// Plain tar.
    None,
}

/// One entry of a layer, before it is written.
#[derive(Clone, Debug)]
struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    contents: Bytes,
    mode: u32,
    owner: (u64, u64),
    device: (u32, u32),
    mtime: u64,
    extended: Vec<(String, Vec<u8>)>,
}

/// A layer under construction. Paths are written as they are given, also hostile ones (`../x`, `/x`).
///
/// `mode`, `owner`, `mtime` and `xattr` speak of the entry added last; they do nothing on an empty layer.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: Vec<Entry>,
    raw: Option<Bytes>,
    compression: Compression,
}

impl Layer {
    /// An empty layer, compressed with gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// A layer of these very bytes in place of an archive (broken tar, random data); still compressed.
    pub fn from_archive(bytes: impl Into<Bytes>) -> Self {
        Self {
            raw: Some(bytes.into()),
            ..Self::default()
        }
    }

    /// Adds a regular file, mode 0644, owner 0:0.
    #[must_use]
    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        let contents = Bytes::copy_from_slice(contents.as_ref());
        self.entry(path, EntryType::Regular, "", contents, 0o644)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, "", Bytes::new(), mode)
    }

    /// Adds a symbolic link to `target`, which is written as it is.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, target, Bytes::new(), 0o777)
    }

    /// Adds a hard link to an earlier entry.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, target, Bytes::new(), 0o644)
    }

    /// Adds a named pipe.
    #[must_use]
    pub fn fifo(self, path: &str) -> Self {
        self.entry(path, EntryType::Fifo, "", Bytes::new(), 0o644)
    }

    /// Adds a character device.
    #[must_use]
    pub fn device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self = self.entry(path, EntryType::Char, "", Bytes::new(), 0o644);
        if let Some(last) = self.entries.last_mut() {
            last.device = (major, minor);
        }
        self
    }

    /// Adds a whiteout: the path is gone from the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marker, "")
    }

    /// Marks a directory opaque: what the layers below hold in it is gone.
    #[must_use]
    pub fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), "")
    }

    /// Sets the permission bits of the last entry, including set-user-id, set-group-id and sticky.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.change(|entry| entry.mode = mode)
    }

    /// Sets the numeric owner of the last entry.
    #[must_use]
    pub fn owner(self, user: u64, group: u64) -> Self {
        self.change(|entry| entry.owner = (user, group))
    }

    /// Sets the modification time of the last entry, in seconds since 1970 (otherwise 0).
    #[must_use]
    pub fn mtime(self, seconds: u64) -> Self {
        self.change(|entry| entry.mtime = seconds)
    }

    /// Adds an extended attribute to the last entry (`security.capability`, `user.x`).
    #[must_use]
    pub fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.change(|entry| {
            entry
                .extended
                .push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        })
    }

    /// Chooses the compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The chosen compression.
    pub(super) fn chosen_compression(&self) -> Compression {
        self.compression
    }

    fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        link: &str,
        contents: Bytes,
        mode: u32,
    ) -> Self {
        self.entries.push(Entry {
            path: path.into(),
            kind,
            link: link.into(),
            contents,
            mode,
            owner: (0, 0),
            device: (0, 0),
            mtime: 0,
            extended: Vec::new(),
        });
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        if let Some(last) = self.entries.last_mut() {
            change(last);
        }
        self
    }

    /// The archive, not compressed: the bytes whose digest is the diffID.
    pub fn archive(&self) -> Bytes {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut archive = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut archive, entry).expect("writing into memory cannot fail");
        }
        archive
            .into_inner()
            .expect("writing into memory cannot fail")
            .into()
    }

    /// The archive as it travels.
    pub fn compressed(&self) -> Bytes {
        let archive = self.archive();
        match self.compression {
            Compression::None => archive,
            Compression::Gzip => {
                let mut out = flate2::GzBuilder::new()
                    .mtime(0)
                    .write(Vec::new(), flate2::Compression::new(6));
                out.write_all(&archive)
                    .and_then(|()| out.finish())
                    .expect("writing into memory cannot fail")
                    .into()
            }
            Compression::Zstd => zstd::encode_all(&archive[..], 3)
                .expect("writing into memory cannot fail")
                .into(),
        }
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> std::io::Result<()> {
    let mut pax: Vec<(&str, &[u8])> = entry
        .extended
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_slice()))
        .collect();
    if entry.path.len() > 100 {
        pax.push(("path", &entry.path));
    }
    if entry.link.len() > 100 {
        pax.push(("linkpath", &entry.link));
    }
    if !pax.is_empty() {
        archive.append_pax_extensions(pax)?;
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0);
    header.set_gid(entry.owner.1);
    header.set_mtime(entry.mtime);
    header.set_size(entry.contents.len() as u64);
    if entry.kind == EntryType::Char {
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    // The setters of paths refuse what a hostile archive holds, so the bytes go in directly.
    let old = header.as_old_mut();
    fill(&mut old.name, &entry.path);
    fill(&mut old.linkname, &entry.link);
    header.set_cksum();
    archive.append(&header, &entry.contents[..])
}

fn fill(field: &mut [u8; 100], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample() -> Layer {
        Layer::new()
            .directory("d", 0o755)
            .file("d/set", "x")
            .mode(0o4755)
            .owner(1000, 100_000)
            .xattr("user.a", b"v")
            .symlink("l", "/etc/passwd")
            .whiteout("d/gone")
            .opaque("d")
            .file(&format!("{}/f", "long".repeat(40)), "deep")
            .file("../escape", "no")
    }

    #[test]
    fn an_archive_reads_back() {
        let bytes = sample().archive();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mode = entry.header().mode().unwrap();
            let uid = entry.header().uid().unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.push((path, mode, uid, text));
        }
        assert_eq!(seen[1], ("d/set".to_owned(), 0o4755, 1000, "x".to_owned()));
        assert_eq!(seen[3].0, "d/.wh.gone");
        assert_eq!(seen[4].0, "d/.wh..wh..opq");
        assert!(seen[5].0.starts_with("longlong") && seen[5].0.ends_with("/f"));
        assert_eq!(seen[6].0, "../escape");
    }

    #[test]
    fn compressions_hold_the_same_archive_and_are_deterministic() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let layer = sample().compression(compression);
            assert_eq!(layer.compressed(), layer.compressed());
            let back = match compression {
                Compression::None => layer.compressed().to_vec(),
                Compression::Zstd => zstd::decode_all(&layer.compressed()[..]).unwrap(),
                Compression::Gzip => {
                    let mut out = Vec::new();
                    flate2::read::GzDecoder::new(&layer.compressed()[..])
                        .read_to_end(&mut out)
                        .unwrap();
                    out
                }
            };
            assert_eq!(back, layer.archive());
        }
    }
}
