//! `Range` of a request and `Content-Range` of an upload, as numbers.

/// What part of a blob is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// From the first to before the second byte.
    Part(u64, u64),
    /// A part that does not exist.
    Unsatisfiable,
}

/// Reads `Range` for content of `total` bytes. Several ranges, or units that are not bytes, mean the whole.
pub(crate) fn wanted(header: Option<&str>, total: u64) -> Wanted {
    let Some(spec) = header.and_then(|value| value.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((from, to)) = spec.split_once('-') else {
        return Wanted::Whole;
    };
    let (from, to) = (from.trim(), to.trim());
    if from.is_empty() {
        return match to.parse::<u64>() {
            Ok(0) => Wanted::Unsatisfiable,
            Ok(last) if total > 0 => Wanted::Part(total.saturating_sub(last), total),
            Ok(_) => Wanted::Unsatisfiable,
            Err(_) => Wanted::Whole,
        };
    }
    let Ok(from) = from.parse::<u64>() else {
        return Wanted::Whole;
    };
    let end = if to.is_empty() {
        Ok(total)
    } else {
        to.parse::<u64>().map(|last| last.saturating_add(1))
    };
    match end {
        Ok(end) if from < end.min(total) => Wanted::Part(from, end.min(total)),
        Ok(_) => Wanted::Unsatisfiable,
        Err(_) => Wanted::Whole,
    }
}

/// Reads the `Content-Range` of an upload's chunk, `first-last` with or without the unit: the first byte and the length.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let spec = header.trim();
    let spec = spec
        .strip_prefix("bytes")
        .map_or(spec, |rest| rest.trim_start_matches([' ', '=']));
    let spec = spec.split('/').next().unwrap_or_default();
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (
        first.trim().parse::<u64>().ok()?,
        last.trim().parse::<u64>().ok()?,
    );
    Some((first, last.checked_add(1)?.checked_sub(first)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("bytes=500-1499", Wanted::Part(500, 1500)),
            ("bytes=500-", Wanted::Part(500, 2048)),
            ("bytes=-500", Wanted::Part(1548, 2048)),
            ("bytes=-5000", Wanted::Part(0, 2048)),
            ("bytes=2000-5000", Wanted::Part(2000, 2048)),
            ("bytes=500-0", Wanted::Unsatisfiable),
            ("bytes=5000-10000", Wanted::Unsatisfiable),
            ("bytes=2048-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=x-1", Wanted::Whole),
            ("bytes=0-18446744073709551615", Wanted::Part(0, 2048)),
        ] {
            assert_eq!(wanted(Some(header), 2048), expected, "{header}");
        }
        assert_eq!(wanted(None, 0), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunks() {
        assert_eq!(chunk("0-1023"), Some((0, 1024)));
        assert_eq!(chunk("bytes 1024-2047/*"), Some((1024, 1024)));
        assert_eq!(chunk("5-4"), Some((5, 0)));
        assert_eq!(chunk("5-3"), None);
        assert_eq!(chunk("x"), None);
        assert_eq!(chunk("0-18446744073709551615"), None);
    }
}
