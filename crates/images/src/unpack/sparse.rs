//! Files with holes, in the four ways that GNU tar writes them: where the bytes of the content go.
//!
//! A map is a list of pieces, each a place and a length. It is accepted where no piece begins before the last one ended or ends behind the
//! file, and all of them together are the content: else two readers could see two files.

use super::error::UnpackError;
use super::number;
use super::pax::decimal;
use crate::ceilings::Limit;

/// Pieces of one file, at most: 4 MiB of memory.
pub(crate) const PIECES: usize = 1 << 18;
/// A piece in an old header: two numbers of twelve bytes.
const OLD: usize = 24;
const OLD_NUMBER: usize = 12;

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Bytes with the holes.
    pub(crate) size: u64,
    /// In order.
    pub(crate) pieces: Vec<Piece>,
}

/// Bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// A map in the making.
pub(crate) struct Map<'a> {
    path: &'a [u8],
    pieces: Vec<Piece>,
    end: u64,
    stored: u64,
}

impl<'a> Map<'a> {
    pub(crate) fn of(path: &'a [u8]) -> Self {
        Self {
            path,
            pieces: Vec::new(),
            end: 0,
            stored: 0,
        }
    }

    pub(crate) fn push(&mut self, at: u64, len: u64) -> Result<(), UnpackError> {
        if self.pieces.len() == PIECES {
            return Err(UnpackError::Ceiling {
                limit: Limit::SparsePieces,
                name: super::error::shown(self.path),
                ceiling: PIECES as u64,
            });
        }
        if at < self.end {
            return Err(self.wrong("has pieces that overlap or are not in order"));
        }
        let (Some(end), Some(stored)) = (at.checked_add(len), self.stored.checked_add(len)) else {
            return Err(self.wrong("has a piece beyond every size"));
        };
        self.end = end;
        self.stored = stored;
        self.pieces.push(Piece { at, len });
        Ok(())
    }

    /// The pieces of an old header or of a block that follows it, and whether that was the end of them.
    pub(crate) fn push_old(&mut self, block: &[u8]) -> Result<bool, UnpackError> {
        let mut ended = false;
        for piece in block.chunks_exact(OLD) {
            let (at, len) = piece.split_at(OLD_NUMBER);
            // How GNU tar sees the end.
            if len[0] == 0 {
                ended = true;
                continue;
            }
            if ended {
                return Err(self.wrong("goes on after its end"));
            }
            let read = |field| number::unsigned(field).map_err(|why| self.wrong(why));
            self.push(read(at)?, read(len)?)?;
        }
        Ok(ended)
    }

    /// Pieces written as `place,length,place,length`.
    fn push_list(&mut self, list: &[u8]) -> Result<(), UnpackError> {
        let mut numbers = list.split(|byte| *byte == b',');
        while let Some(at) = numbers.next() {
            let Some(len) = numbers.next() else {
                return Err(self.wrong("ends in the middle of a piece"));
            };
            let read = |text| decimal(text).map_err(|why| self.wrong(&why));
            self.push(read(at)?, read(len)?)?;
        }
        Ok(())
    }

    /// The file, of `size` bytes with the holes and `stored` without.
    pub(crate) fn finish(self, size: u64, stored: u64) -> Result<Sparse, UnpackError> {
        if self.end > size {
            return Err(self.wrong(&format!("has bytes beyond the {size} of the file")));
        }
        if self.stored != stored {
            return Err(self.wrong(&format!(
                "places {} bytes, the archive has {stored}",
                self.stored
            )));
        }
        Ok(Sparse {
            size,
            pieces: self.pieces,
        })
    }

    pub(crate) fn wrong(&self, what: &str) -> UnpackError {
        UnpackError::entry(self.path, format!("its map of holes {what}"))
    }
}

/// What the records of an extended header say of a file with holes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    major: Option<u64>,
    minor: Option<u64>,
    /// The real name; the header has one that tells readers who know no holes what this is.
    pub(crate) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    count: Option<u64>,
    list: Option<Vec<u8>>,
    /// Places and lengths in turn.
    numbers: Vec<u64>,
}

/// Where the map is.
pub(crate) enum Form {
    /// Read already; the file's size.
    Here(u64),
    /// In the first blocks of the content; the file's size.
    InContent(u64),
}

/// Whether a header may have this record more than once.
pub(crate) fn repeats(key: &[u8]) -> bool {
    matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes")
}

impl Records {
    /// Takes in a record whose key begins with `GNU.sparse.`.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"GNU.sparse.major" => self.major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.minor = Some(decimal(value)?),
            b"GNU.sparse.name" if !value.is_empty() && !value.contains(&0) => {
                self.name = Some(value.to_vec());
            }
            b"GNU.sparse.size" => self.size = Some(decimal(value)?),
            b"GNU.sparse.realsize" => self.real_size = Some(decimal(value)?),
            b"GNU.sparse.numblocks" => self.count = Some(decimal(value)?),
            b"GNU.sparse.map" => self.list = Some(value.to_vec()),
            b"GNU.sparse.offset" if self.numbers.len().is_multiple_of(2) => {
                self.numbers.push(decimal(value)?);
            }
            b"GNU.sparse.numbytes" if !self.numbers.len().is_multiple_of(2) => {
                self.numbers.push(decimal(value)?);
            }
            _ => {
                let key = super::error::shown(key);
                return Err(format!("{key} does not say how a file has holes"));
            }
        }
        Ok(())
    }

    /// Reads the map into `map`, or says that it is in the content.
    pub(crate) fn read(&self, map: &mut Map<'_>) -> Result<Form, UnpackError> {
        let old = self.size.is_some() || self.count.is_some() || self.list.is_some();
        let old = old || !self.numbers.is_empty();
        match (self.major, self.minor, self.real_size) {
            (Some(1), Some(0), Some(size)) if !old => Ok(Form::InContent(size)),
            (None, None, None) | (Some(0), Some(0 | 1), None) => self.read_old(map),
            _ => Err(map.wrong("is of no known form")),
        }
    }

    fn read_old(&self, map: &mut Map<'_>) -> Result<Form, UnpackError> {
        let (Some(size), Some(count)) = (self.size, self.count) else {
            return Err(map.wrong("has no size or no count of its pieces"));
        };
        match &self.list {
            Some(_) if !self.numbers.is_empty() => return Err(map.wrong("is there twice")),
            Some(list) if count > 0 || !list.is_empty() => map.push_list(list)?,
            _ => {
                let (pairs, rest) = self.numbers.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(map.wrong("ends in the middle of a piece"));
                }
                for [at, len] in pairs {
                    map.push(*at, *len)?;
                }
            }
        }
        if map.pieces.len() as u64 != count {
            return Err(map.wrong("has more or fewer pieces than it says"));
        }
        Ok(Form::Here(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pieces: &[(u64, u64)], size: u64, stored: u64) -> Result<Sparse, String> {
        let mut map = Map::of(b"file");
        for (at, len) in pieces {
            map.push(*at, *len).map_err(|error| error.to_string())?;
        }
        map.finish(size, stored).map_err(|error| error.to_string())
    }

    #[test]
    fn a_map_has_one_meaning_or_is_refused() {
        assert!(map(&[(0, 5), (5, 5), (100, 0)], 100, 10).is_ok());
        assert!(map(&[], 1 << 40, 0).is_ok());
        for (pieces, size, stored, why) in [
            (&[(10, 5), (0, 5)][..], 100, 10, "not in order"),
            (&[(0, 5), (4, 5)], 100, 10, "overlap"),
            (&[(96, 5)], 100, 5, "beyond the 100"),
            (&[(101, 0)], 100, 0, "beyond the 100"),
            (&[(u64::MAX, 2)], u64::MAX, 2, "beyond every size"),
            (&[(0, 5)], 100, 6, "places 5 bytes, the archive has 6"),
            (&[(0, 5)], 100, 4, "places 5 bytes, the archive has 4"),
        ] {
            let error = map(pieces, size, stored).unwrap_err();
            assert!(
                error.contains(why) && error.contains("\"file\""),
                "{error}, not {why}"
            );
        }
        let mut many = Map::of(b"file");
        let over = (0..=PIECES as u64).find_map(|at| many.push(at, 1).err());
        let over = over.unwrap().to_string();
        assert!(
            over.contains("\"file\" has more pieces than the ceiling"),
            "{over}"
        );
    }

    #[test]
    fn old_headers_end_where_gnu_tar_sees_their_end() {
        let piece = |at: &str, len: &str| {
            let mut bytes = [0; OLD];
            bytes[..at.len()].copy_from_slice(at.as_bytes());
            bytes[OLD_NUMBER..][..len.len()].copy_from_slice(len.as_bytes());
            bytes
        };
        let two = [piece("0", "10"), piece("1000", "0")].concat();
        let mut read = Map::of(b"file");
        assert!(!read.push_old(&two).unwrap());
        let pieces = [Piece { at: 0, len: 8 }, Piece { at: 512, len: 0 }];
        assert_eq!(read.finish(512, 8).unwrap().pieces, pieces);
        let ended = [piece("0", "10"), [0; OLD]].concat();
        assert!(Map::of(b"file").push_old(&ended).unwrap());
        let on = [[0; OLD], piece("0", "10")].concat();
        let error = Map::of(b"file").push_old(&on).unwrap_err();
        assert!(error.to_string().contains("after its end"), "{error}");
    }

    fn records(all: &[(&str, &str)]) -> Result<(Form, Vec<Piece>), String> {
        let mut records = Records::default();
        for (key, value) in all {
            let key = format!("GNU.sparse.{key}");
            records.take(key.as_bytes(), value.as_bytes())?;
        }
        let mut map = Map::of(b"file");
        let form = records.read(&mut map).map_err(|error| error.to_string())?;
        Ok((form, map.pieces))
    }

    #[test]
    fn records_are_of_one_form() {
        let size = ("size", "100");
        for good in [
            &[size, ("numblocks", "1"), ("offset", "4"), ("numbytes", "5")][..],
            &[size, ("numblocks", "1"), ("map", "4,5")],
        ] {
            let (form, pieces) = records(good).unwrap();
            assert!(matches!(form, Form::Here(100)));
            assert_eq!(pieces, [Piece { at: 4, len: 5 }]);
        }
        let none = records(&[size, ("numblocks", "0"), ("map", "")]).unwrap();
        assert_eq!(none.1, []);
        let one = [("major", "1"), ("minor", "0"), ("realsize", "7")];
        assert!(matches!(records(&one), Ok((Form::InContent(7), _))));
        for bad in [
            &[("realsize", "9")][..],
            &[size],
            &[size, ("numblocks", "2"), ("map", "4,5")],
            &[size, ("numblocks", "1"), ("map", "4")],
            &[size, ("numblocks", "1"), ("map", "4,-5")],
            &[size, ("numblocks", "1"), ("map", "")],
            &[size, ("numblocks", "1"), ("offset", "4")],
            &[size, ("numblocks", "1"), ("numbytes", "4"), ("offset", "4")],
            &[
                size,
                ("numblocks", "1"),
                ("map", "4,5"),
                ("offset", "4"),
                ("numbytes", "5"),
            ],
            &[("major", "1"), ("minor", "0"), ("realsize", "7"), size],
            &[("major", "1"), ("minor", "1"), ("realsize", "7")],
            &[("major", "2"), ("minor", "0"), ("realsize", "7")],
            &[("unheard", "of")],
        ] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }
}
