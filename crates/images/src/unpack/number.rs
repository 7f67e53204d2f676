//! The numbers in a tar header.

/// Reads a numeric field: octal digits between blanks and NULs (none means 0), or GNU's base-256. Negative numbers only in base-256.
pub(crate) fn field(bytes: &[u8]) -> Result<i64, &'static str> {
    match bytes.first() {
        None => Ok(0),
        Some(first) if first & 0x80 != 0 => base256(bytes),
        Some(_) => octal(bytes),
    }
}

/// As [`field`], not negative.
pub(crate) fn unsigned(bytes: &[u8]) -> Result<u64, &'static str> {
    u64::try_from(field(bytes)?).map_err(|_| "a number is negative")
}

fn octal(bytes: &[u8]) -> Result<i64, &'static str> {
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return Err("a number is followed by something else");
    }
    digits[..end].iter().try_fold(0_i64, |value, digit| {
        if !(b'0'..=b'7').contains(digit) {
            return Err("a number is not octal");
        }
        value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or("a number is too large")
    })
}

fn base256(bytes: &[u8]) -> Result<i64, &'static str> {
    let negative = bytes[0] & 0x40 != 0;
    // The flag bit is no part of the number; the sign is spread over it.
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in std::iter::once(first).chain(bytes[1..].iter().copied()) {
        value = (value << 8) | i128::from(byte);
        if i64::try_from(value).is_err() {
            return Err("a number is too large");
        }
    }
    i64::try_from(value).map_err(|_| "a number is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_writer() {
        let long = |first: u8, last: u8| {
            let mut bytes = [first; 12];
            bytes[1..].fill(if first == 0xff { 0xff } else { 0 });
            bytes[11] = last;
            field(&bytes)
        };
        assert_eq!(field(b"0000644\0"), Ok(0o644));
        assert_eq!(field(b"   644 \0"), Ok(0o644));
        assert_eq!(field(b"00000000012"), Ok(10));
        assert_eq!(field(b"\0\0\0\0"), Ok(0));
        assert_eq!(long(0x80, 7), Ok(7));
        assert_eq!(long(0xff, 0xff), Ok(-1));
        for bad in [&b"8"[..], b"12x", b"+7", b"-7", b"7 7", b"0x1"] {
            assert!(field(bad).is_err(), "{bad:?}");
        }
        assert!(
            field(&[
                0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0
            ])
            .is_err()
        );
        assert!(unsigned(&[0xff; 12]).is_err());
    }
}
