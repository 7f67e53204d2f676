//! An error chain: links separated by `: `, with quoted names kept whole.

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The text as written, trimmed of stray quotes and brackets.
    pub(crate) text: String,
    /// The same in lower case, with quoted names, URLs, paths, addresses and references replaced by `_`.
    pub(crate) plain: String,
}

/// All links, outermost first.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    links: Vec<Link>,
}

/// Most links that are kept; a real chain has a dozen.
const MAX_LINKS: usize = 128;

/// Longest quoted name, in bytes: a quote that is not closed within is none. It bounds the time that a hostile text takes.
const MAX_NAME: usize = 4096;

/// Words before a quoted name; such a name is one unit whatever it holds.
const INTRODUCERS: &[&str] = &[
    "image",
    "reference",
    "Get",
    "Head",
    "Post",
    "GET",
    "HEAD",
    "ref",
    "for",
    "manifest",
    "repository",
];

impl Chain {
    pub(crate) fn split(text: &str) -> Self {
        let mut pieces: Vec<&str> = pieces(text)
            .into_iter()
            .map(clean)
            .filter(|piece| !piece.is_empty())
            .collect();
        if pieces.len() > MAX_LINKS {
            // The outermost say who speaks, the innermost what happened.
            pieces.drain(MAX_LINKS / 2..pieces.len() - MAX_LINKS / 2);
        }
        let links = pieces
            .into_iter()
            .map(|piece| Link {
                plain: strip(&plain(piece)).to_owned(),
                text: piece.to_owned(),
            })
            .collect();
        Self { links }
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The plain text of a link; empty outside the chain.
    pub(crate) fn plain(&self, at: usize) -> &str {
        self.links.get(at).map_or("", |link| link.plain.as_str())
    }

    /// The text of a link; empty outside the chain.
    pub(crate) fn text(&self, at: usize) -> &str {
        self.links.get(at).map_or("", |link| link.text.as_str())
    }

    /// The plain text of the link before.
    pub(crate) fn before(&self, at: usize) -> &str {
        at.checked_sub(1).map_or("", |before| self.plain(before))
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// The first link whose plain text begins so.
    pub(crate) fn starts(&self, beginning: &str) -> Option<usize> {
        self.links
            .iter()
            .position(|link| link.plain.starts_with(beginning))
    }
}

/// Splits at `: ` outside quoted units. A line's end separates links where a colon or a status stands before it, and is a
/// space elsewhere.
fn pieces(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = unit_end(text, at).unwrap_or(at + 1),
            b':' if at + 1 == bytes.len() || bytes[at + 1].is_ascii_whitespace() => {
                pieces.push(&text[start..at]);
                start = at + 1;
                at += 1;
            }
            b':' if text[at..].starts_with(":x509") => {
                pieces.push(&text[start..at]);
                start = at + 1;
                at += 1;
            }
            b'\n' => {
                pieces.push(&text[start..at]);
                start = at + 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    pieces.push(&text[start..]);
    rejoin(text, pieces)
}

/// Joins lines that were broken inside a sentence: the next line goes on with a word that begins no link.
fn rejoin<'a>(text: &'a str, pieces: Vec<&'a str>) -> Vec<&'a str> {
    let mut joined: Vec<&str> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let next = piece.trim_start();
        let goes_on = ["\"", "http", "(http", "to http", "desc "]
            .iter()
            .any(|word| next.starts_with(word));
        let unfinished = joined.last().is_some_and(|last| {
            let last_end = last.as_ptr() as usize - text.as_ptr() as usize + last.len();
            let by_line = text.as_bytes().get(last_end) == Some(&b'\n');
            by_line
                && (goes_on
                    || ["to", "image", "reference", "desc", "request", "url"]
                        .iter()
                        .any(|w| last.ends_with(w)))
        });
        match joined.last_mut() {
            Some(last) if unfinished => {
                let start = last.as_ptr() as usize - text.as_ptr() as usize;
                let end = piece.as_ptr() as usize - text.as_ptr() as usize + piece.len();
                *last = &text[start..end];
            }
            _ => joined.push(piece),
        }
    }
    joined
}

/// The end of a quoted unit that starts at `at`; `None` when the quote does not enclose a name.
fn unit_end(text: &str, at: usize) -> Option<usize> {
    let quote = text.as_bytes()[at];
    let before = text[..at].trim_end();
    // An apostrophe inside a word is no quote.
    if quote == b'\'' && (before.len() == at || at == 0) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut end = at + 1;
    let last = bytes.len().min(at + MAX_NAME);
    while end < last {
        match bytes[end] {
            b'\\' => end += 1,
            found if found == quote => {
                let inside = &text[at + 1..end];
                let introduced =
                    INTRODUCERS.iter().any(|word| before.ends_with(word)) && before.len() < at;
                let is_name = introduced || !inside.contains(": ");
                return is_name.then_some(end + 1);
            }
            _ => {}
        }
        end += 1;
    }
    None
}

/// Takes stray quotes, brackets and full stops off both ends.
fn clean(piece: &str) -> &str {
    let trim = |piece: &'_ str| -> (usize, usize) {
        let start = piece.len() - piece.trim_start_matches(['(', '[', ' ']).len();
        let end = piece.trim_end_matches(|c: char| " ;*".contains(c)).len();
        (start, end.max(start))
    };
    let mut piece = piece.trim();
    for _ in 0..2 {
        let (start, end) = trim(piece);
        piece = &piece[start..end];
        // A quote that nothing closes in this link belongs to a sentence around it.
        if piece.matches('"').count() % 2 == 1 {
            piece = piece
                .strip_prefix('"')
                .or_else(|| piece.strip_suffix('"'))
                .unwrap_or(piece);
        }
    }
    let open = piece.matches(['(', '[']).count();
    let close = piece.matches([')', ']']).count();
    let piece = if close > open {
        piece.trim_end_matches([')', ']', '"'])
    } else {
        piece
    };
    piece.strip_suffix('.').unwrap_or(piece)
}

/// Lower case, names out.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(quote) = rest.find('"') {
        let Some(end) = rest[quote + 1..].find('"') else {
            break;
        };
        out.push_str(&rest[..quote]);
        out.push('_');
        rest = &rest[quote + 1 + end + 1..];
    }
    out.push_str(rest);
    let words: Vec<String> = out.split_whitespace().map(word).collect();
    words.join(" ")
}

/// A word in lower case, or `_` for a name: it holds a character that names and addresses have and words have not.
fn word(word: &str) -> String {
    let core = word
        .trim_matches(|c: char| "(),;'`<>\"".contains(c))
        .trim_end_matches(['.', ':']);
    let is_name = core.contains(['/', '@', ':', '\\'])
        || (core.contains('.') && !matches!(core, "e.g" | "i.e"))
        || core.contains("sha256");
    if is_name && !KEPT.iter().any(|kept| core.eq_ignore_ascii_case(kept)) {
        let tail: String = word
            .chars()
            .rev()
            .take_while(|c| ",;)".contains(*c))
            .collect();
        return format!("_{}", tail.chars().rev().collect::<String>());
    }
    word.to_lowercase()
}

/// Words that look like names and are words of a speaker.
const KEPT: &[&str] = &[
    "Client.Timeout",
    "i/o",
    "net/http",
    "archive/tar",
    "input/output",
    "username/password",
    "hosts.toml",
    "info.Labels",
];

/// Takes log levels and a gRPC envelope off the beginning of a link.
fn strip(plain: &str) -> &str {
    let mut rest = plain;
    // Storage of containers appends how its helper ended.
    if let Some((error, status)) = rest.split_once(" exit status ")
        && !error.is_empty()
        && !error.ends_with("applylayer")
        && status.bytes().all(|b| b.is_ascii_digit())
    {
        rest = error;
    }
    // Advice that a service appends to an error is no part of it.
    if let Some((error, _)) = rest.split_once(". please ") {
        rest = error;
    }
    if let Some((level, after)) = rest.split_once("] ")
        && level.len() < 48
        && ["fata[", "erro[", "warn[", "info["]
            .iter()
            .any(|mark| level.starts_with(mark))
    {
        rest = after;
    }
    if let Some(after) = rest.strip_prefix("code = ").or_else(|| {
        rest.strip_prefix("code=")
            .or_else(|| rest.strip_prefix("code "))
    }) && let Some((_, message)) = after.split_once("desc = ").or_else(|| {
        after
            .split_once("desc=")
            .or_else(|| after.split_once("desc "))
    }) {
        rest = message;
    }
    if let Some(after) = rest
        .strip_prefix("(http code ")
        .or_else(|| rest.strip_prefix("http code "))
        && let Some((_, message)) = after.split_once(" - ")
    {
        rest = message;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plains(text: &str) -> Vec<String> {
        Chain::split(text)
            .links()
            .iter()
            .map(|link| link.plain.clone())
            .collect()
    }

    #[test]
    fn links_keep_names_whole_and_out() {
        for (text, expected) in [
            ("a: b: c", vec!["a", "b", "c"]),
            (
                r#"failed to resolve reference "reg.io/timeout:1": reg.io/timeout:1: not found"#,
                vec!["failed to resolve reference _", "_", "not found"],
            ),
            (
                r#"Head "https://reg.io/v2/x": dial tcp: lookup reg.io on 10.0.0.1:53: no such host"#,
                vec!["head _", "dial tcp", "lookup _ on _", "no such host"],
            ),
            (
                "Get https://reg.io/v2/: dial tcp 1.2.3.4:443: i/o timeout",
                vec!["get _", "dial tcp _", "i/o timeout"],
            ),
            (
                r#"image "a: unauthorized": not found"#,
                vec!["image _", "not found"],
            ),
            (
                "429 Too Many Requests\ntoomanyrequests: slow down",
                vec!["429 too many requests", "toomanyrequests", "slow down"],
            ),
            (
                "from GET request\nto https://a.b/c: 403 Forbidden",
                vec!["from get request to _", "403 forbidden"],
            ),
        ] {
            assert_eq!(plains(text), expected, "{text}");
        }
    }
}
