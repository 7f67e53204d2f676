//! Extended headers (POSIX pax).

use super::{number, sparse};
use crate::Ceilings;
use crate::ceilings::Limit;

/// What the extended header of one entry says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) linkpath: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(crate) mtime: Option<(i64, u32)>,
    /// Names without their prefix.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// A file with holes, in any of the three ways to write one.
    pub(crate) holes: Option<sparse::Records>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
/// The kernel takes no longer one.
const LONGEST_XATTR_NAME: usize = 255;
/// Records of one header besides its extended attributes.
const OTHER_RECORDS: usize = 64;

/// Why an extended header is not accepted.
#[derive(Debug)]
pub(crate) enum PaxFault {
    /// It does not fit the grammar.
    Malformed(String),
    /// It has too much of something.
    Over {
        limit: Limit,
        name: String,
        ceiling: u64,
    },
}

impl From<String> for PaxFault {
    fn from(why: String) -> Self {
        Self::Malformed(why)
    }
}

fn over(limit: Limit, name: &[u8], ceiling: usize) -> PaxFault {
    PaxFault::Over {
        limit,
        name: super::error::shown(name),
        ceiling: ceiling as u64,
    }
}

impl Pax {
    /// Reads the records of a header. Anything that does not fit the grammar, and a doubled key, is an error: a reader that skips it would
    /// see another archive than the next one.
    pub(crate) fn parse(mut bytes: &[u8], ceilings: &Ceilings) -> Result<Self, PaxFault> {
        let mut pax = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            bytes = rest;
            if sparse::repeats(key) {
                pax.take(key, value, ceilings)?;
                continue;
            }
            if seen.contains(&key) {
                return Err(PaxFault::Malformed(format!(
                    "the extended header has {:?} twice",
                    super::error::shown(key)
                )));
            }
            if seen.len() > ceilings.xattrs + OTHER_RECORDS {
                let most = ceilings.xattrs + OTHER_RECORDS;
                return Err(over(Limit::Records, key, most));
            }
            seen.push(key);
            pax.take(key, value, ceilings)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8], ceilings: &Ceilings) -> Result<(), PaxFault> {
        if let Some(name) = key.strip_prefix(XATTR) {
            if self.xattrs.len() == ceilings.xattrs {
                return Err(over(Limit::Xattrs, name, ceilings.xattrs));
            }
            if name.is_empty() || name.contains(&0) || name.len() > LONGEST_XATTR_NAME {
                let why = "an extended attribute has no usable name".to_owned();
                return Err(PaxFault::Malformed(why));
            }
            if value.len() > ceilings.xattr_bytes {
                return Err(over(Limit::XattrBytes, name, ceilings.xattr_bytes));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            let holes = self.holes.get_or_insert_default();
            return Ok(holes.take(key, value)?);
        }
        if key == b"SCHILY.realsize" {
            let why = "SCHILY.realsize says that there are holes, and nothing says where";
            return Err(PaxFault::Malformed(why.to_owned()));
        }
        // An empty value takes the ustar field.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.linkpath = Some(text(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {}
        }
        Ok(())
    }

    /// Whether a header for the whole archive says something that would change how entries are read.
    pub(crate) fn matters_globally(&self) -> bool {
        *self != Self::default()
    }
}

/// Key, value, and what follows.
type Record<'b> = (&'b [u8], &'b [u8], &'b [u8]);

/// One record, `<length> <key>=<value>\n`, and what follows it.
fn record(bytes: &[u8]) -> Result<Record<'_>, String> {
    let bad = |why: &str| format!("the extended header has {why}");
    let space = bytes
        .iter()
        .take(20)
        .position(|b| *b == b' ')
        .ok_or_else(|| bad("no length"))?;
    let length = usize::try_from(decimal(&bytes[..space])?).unwrap_or(usize::MAX);
    if length <= space + 1 || length > bytes.len() {
        return Err(bad("a record that is longer than the header"));
    }
    let (whole, rest) = bytes.split_at(length);
    let body = whole[space + 1..]
        .strip_suffix(b"\n")
        .ok_or_else(|| bad("a record without an end of line"))?;
    let equals = body
        .iter()
        .position(|b| *b == b'=')
        .filter(|at| *at > 0)
        .ok_or_else(|| bad("a record without a key"))?;
    if body[..equals].contains(&0) {
        return Err(bad("a key with NUL in it"));
    }
    Ok((&body[..equals], &body[equals + 1..], rest))
}

fn text(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.contains(&0) {
        return Err("a path has NUL in it".to_owned());
    }
    Ok(value.to_vec())
}

/// A number of digits alone.
pub(crate) fn decimal(value: &[u8]) -> Result<u64, String> {
    let digits = (1..=20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{:?} is no number", super::error::shown(value)))
}

/// Seconds with an optional sign and fraction. The fraction of a negative time counts downward.
fn time(value: &[u8]) -> Result<(i64, u32), String> {
    let bad = || format!("{:?} is no time", super::error::shown(value));
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(decimal(whole.as_bytes())?).map_err(|_| bad())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// The time of a ustar header's field.
pub(crate) fn header_time(field: &[u8]) -> Result<(i64, u32), &'static str> {
    Ok((number::field(field)?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(key: &str, value: &str) -> Vec<u8> {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        if length.to_string().len() + body.len() != length {
            length = length.to_string().len() + body.len();
        }
        if length.to_string().len() + body.len() != length {
            length += 1;
        }
        format!("{length}{body}").into_bytes()
    }

    #[test]
    fn records_are_read() {
        let bytes = [
            rec("path", "a/b"),
            rec("size", "8589934592"),
            rec("mtime", "-1.5"),
            rec("SCHILY.xattr.user.x", "y=z"),
            rec("comment", "long ".repeat(40).as_str()),
        ]
        .concat();
        let pax = Pax::parse(&bytes, &Ceilings::default()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.size, Some(1 << 33));
        assert_eq!(pax.mtime, Some((-2, 500_000_000)));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"y=z".to_vec())]);
        assert_eq!(pax.holes, None);
        let holes = [
            rec("GNU.sparse.offset", "0"),
            rec("GNU.sparse.numbytes", "5"),
            rec("GNU.sparse.offset", "0"),
        ];
        let pax = Pax::parse(&holes.concat(), &Ceilings::default()).unwrap();
        assert!(pax.holes.is_some());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let doubled = [rec("path", "a"), rec("path", "b")].concat();
        for bad in [
            &b"5 a=b\n"[..],
            b"99 path=a\n",
            b"9 path=ab",
            b"8 =value\n",
            b"x path=a\n",
            b"0 path=a\n",
            b"18446744073709551615 path=a\n",
            b"12 path=a\0b\n",
            &doubled,
            &rec("size", "-1"),
            &rec("size", "1e3"),
            &rec("mtime", "now"),
            &rec("uid", "99999999999999999999"),
        ] {
            assert!(
                Pax::parse(bad, &Ceilings::default()).is_err(),
                "{:?}",
                bad.escape_ascii().to_string()
            );
        }
    }
}
