//! Paths in an archive.

use super::error::{UnpackError, shown};
use crate::Ceilings;
use crate::ceilings::Limit;

/// A path in an archive as it is used: relative, its names joined by single slashes, without `.` and `..`. Empty for the layer's root.
///
/// A leading slash means the layer's root, as for every unpacker. `..` is refused, also where it would stay inside.
pub(crate) fn clean(raw: &[u8], ceilings: &Ceilings) -> Result<Vec<u8>, UnpackError> {
    if raw.is_empty() {
        return Err(UnpackError::entry(raw, "it has no name"));
    }
    if raw.contains(&0) {
        return Err(UnpackError::entry(raw, "its name has NUL in it"));
    }
    if raw.len() > ceilings.path_bytes {
        return Err(too_much(Limit::PathBytes, raw, ceilings.path_bytes));
    }
    let mut path = Vec::with_capacity(raw.len());
    let mut depth = 0;
    for name in raw.split(|b| *b == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => {
                return Err(UnpackError::entry(
                    raw,
                    "its path has `..` in it and could lead out of the layer",
                ));
            }
            _ => {}
        }
        if name.len() > ceilings.name_bytes {
            return Err(too_much(Limit::NameBytes, raw, ceilings.name_bytes));
        }
        depth += 1;
        if depth > ceilings.path_depth {
            return Err(too_much(Limit::PathDepth, raw, ceilings.path_depth));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
    }
    Ok(path)
}

fn too_much(limit: Limit, raw: &[u8], ceiling: usize) -> UnpackError {
    UnpackError::Ceiling {
        limit,
        name: shown(raw),
        ceiling: ceiling as u64,
    }
}

/// Parent and last name of a clean path that is not empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative_or_refused() {
        let ceilings = Ceilings {
            path_depth: 3,
            ..Ceilings::default()
        };
        for (raw, want) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a//b/", b"a/b"),
            (b"/etc/passwd", b"etc/passwd"),
            (b"./", b""),
            (b"/", b""),
            (b"...", b"..."),
        ] {
            assert_eq!(clean(raw, &ceilings).unwrap(), want);
        }
        let long = [b'x'; 256];
        let longer = b"a/".repeat(2048);
        for raw in [
            &b""[..],
            b"..",
            b"../x",
            b"a/../../x",
            b"/../x",
            b"a\0b",
            b"a/b/c/d",
            &long,
            &longer,
        ] {
            assert!(clean(raw, &ceilings).is_err(), "{}", shown(raw));
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
