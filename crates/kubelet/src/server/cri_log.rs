//! Lines of a container's log file as CRI writes them: `TIME STREAM TAG CONTENT`.

use jiff::Timestamp;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written.
    pub(crate) time: Timestamp,
    /// The time as it stands in the file.
    pub(crate) stamp: &'a str,
    pub(crate) stream: Stream,
    /// The content is a piece of a longer line that goes on with the next one.
    pub(crate) partial: bool,
    pub(crate) content: &'a [u8],
}

/// Reads one line, with or without its line feed. Nothing where it is not of this form.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (stamp, rest) = split(line)?;
    let (stream, rest) = split(rest)?;
    let (tags, content) = split(rest).unwrap_or((rest, b""));
    let stamp = std::str::from_utf8(stamp).ok()?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = match tags.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line {
        time: stamp.parse().ok()?,
        stamp,
        stream,
        partial,
        content,
    })
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// What a caller wants to see of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Only lines at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
    /// At most so many bytes in all.
    pub(crate) limit: Option<u64>,
}

/// Turns lines of a file into what the caller sees.
#[derive(Debug)]
pub(crate) struct Renderer {
    view: View,
    left: Option<u64>,
    inside_line: bool,
}

impl Renderer {
    /// A renderer at the beginning of a line.
    pub(crate) fn new(view: View) -> Self {
        Self {
            left: view.limit,
            view,
            inside_line: false,
        }
    }

    /// Appends what `line` shows to `out`; false when the byte limit is reached.
    pub(crate) fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(line) else { return true };
        if self.view.since.is_some_and(|since| line.time < since) {
            return true;
        }
        let start = out.len();
        if self.view.timestamps && !self.inside_line {
            out.extend_from_slice(line.stamp.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.inside_line = line.partial;
        if let Some(left) = &mut self.left {
            let wrote = (out.len() - start) as u64;
            if wrote >= *left {
                out.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
                *left = 0;
                return false;
            }
            *left -= wrote;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [&str; 4] = [
        "2026-11-22T13:47:08.000000001Z stdout F hello\n",
        "2026-11-22T13:47:09Z stderr P one \n",
        "2026-11-22T13:47:09Z stderr F line\n",
        "not a log line\n",
    ];

    fn render(view: View) -> String {
        let mut renderer = Renderer::new(view);
        let mut out = Vec::new();
        for line in LOG {
            if !renderer.push(line.as_bytes(), &mut out) {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pieces_join_and_foreign_lines_are_skipped() {
        assert_eq!(render(View::default()), "hello\none line\n");
    }

    #[test]
    fn times_since_and_limit() {
        let view = View {
            timestamps: true,
            since: Some("2026-11-22T13:47:09Z".parse().unwrap()),
            limit: None,
        };
        assert_eq!(render(view), "2026-11-22T13:47:09Z one line\n");
        let view = View {
            limit: Some(8),
            ..View::default()
        };
        assert_eq!(render(view), "hello\non");
    }

    #[test]
    fn an_empty_line_is_a_line() {
        let line = parse(b"2026-11-22T13:47:09Z stdout F \n").unwrap();
        assert_eq!(line.content, b"");
        assert_eq!(line.stream, Stream::Stdout);
        assert!(parse(b"2026-11-22T13:47:09Z stdout F").is_some());
        assert!(parse(b"yesterday stdout F x").is_none());
    }
}
