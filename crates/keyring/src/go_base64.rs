//! Base64 with the kubelet's error positions.
//!
//! The position becomes part of a pod's waiting reason (`illegal base64 data at input byte N`), so it has to be the
//! same byte that the kubelet's decoder reports: the offending byte for a foreign character, the start of the
//! incomplete group when the input ends early, the input's length when one of two `=` is missing. Line ends are
//! skipped anywhere.

/// Decodes the standard alphabet.
///
/// `padded` asks for complete groups with `=`; otherwise `=` is a foreign character and the last group may be short.
/// The error is the position of the fault in bytes.
pub(crate) fn decode(input: &[u8], padded: bool) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(input.len() / 4 * 3 + 3);
    let mut at = 0;
    loop {
        let group = read_group(input, &mut at, padded)?;
        match group.len {
            0 => return Ok(out),
            len => {
                let word = group
                    .values
                    .iter()
                    .fold(0u32, |word, value| (word << 6) | u32::from(*value));
                let bytes = word.to_be_bytes();
                out.extend_from_slice(&bytes[1..len]);
            }
        }
        if group.last {
            return Ok(out);
        }
    }
}

/// Up to four sextets; `last` when padding or a short end closed the input.
struct Group {
    values: [u8; 4],
    len: usize,
    last: bool,
}

fn read_group(input: &[u8], at: &mut usize, padded: bool) -> Result<Group, usize> {
    let mut group = Group {
        values: [0; 4],
        len: 0,
        last: false,
    };
    while group.len < 4 {
        let Some(&byte) = input.get(*at) else {
            // The decoder counts back over the sextets of the group, not over skipped line ends.
            return match group.len {
                0 => Ok(group),
                len if len == 1 || padded => Err(*at - len),
                _ => {
                    group.last = true;
                    Ok(group)
                }
            };
        };
        *at += 1;
        if let Some(value) = sextet(byte) {
            group.values[group.len] = value;
            group.len += 1;
        } else if byte == b'\n' || byte == b'\r' {
        } else if byte == b'=' && padded {
            close(input, at, group.len)?;
            group.last = true;
            return Ok(group);
        } else {
            return Err(*at - 1);
        }
    }
    Ok(group)
}

/// Checks what follows the first `=` of a group of `len` sextets.
fn close(input: &[u8], at: &mut usize, len: usize) -> Result<(), usize> {
    let skip = |at: &mut usize| {
        while matches!(input.get(*at), Some(b'\n' | b'\r')) {
            *at += 1;
        }
    };
    if len < 2 {
        return Err(*at - 1);
    }
    if len == 2 {
        skip(at);
        match input.get(*at) {
            None => return Err(input.len()),
            Some(b'=') => *at += 1,
            Some(_) => return Err(*at - 1),
        }
    }
    skip(at);
    if *at < input.len() { Err(*at) } else { Ok(()) }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_with_and_without_padding() {
        for (text, padded, bytes) in [
            ("", true, ""),
            ("Ym9iOnB3", true, "bob:pw"),
            ("Ym9iOnB3ZA==", true, "bob:pwd"),
            ("Ym9iOnB3ZA", false, "bob:pwd"),
            ("Ym9i\nOnB3\r\nZA==\n", true, "bob:pwd"),
            ("Ym9iOnB3\n", false, "bob:pw"),
        ] {
            assert_eq!(
                decode(text.as_bytes(), padded).as_deref(),
                Ok(bytes.as_bytes()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn names_the_byte_that_the_kubelet_names() {
        for (text, padded, position) in [
            ("!!!!", false, 0),
            ("Ym9i!nB3", false, 4),
            ("Ym9iO", false, 4),
            ("Ym9iOn=", true, 7),
            ("Ym9iO===", true, 5),
            ("Ym9iOnB3Z===", true, 9),
            ("Ym9iOnB3ZA==x", true, 12),
            ("Ym9iOnB3ZA=x", true, 10),
            ("Ym9iOnB3ZA==", false, 10),
            ("Ym9iOnB", true, 4),
            ("bob:pw", false, 3),
            ("=", true, 0),
        ] {
            assert_eq!(decode(text.as_bytes(), padded), Err(position), "{text:?}");
        }
    }
}
