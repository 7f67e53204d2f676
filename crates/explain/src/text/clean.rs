//! A paste made plain: no colours, no control characters, and lines put together that a terminal broke at its edge.

/// Takes colour codes and control characters out. Line ends become `\n`.
pub(super) fn plain(text: &str) -> String {
    let text = &*without_entities(text);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => escape(&mut characters),
            '\r' => {
                if characters.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            // What hard-copy tools and chat programs put between words.
            '\u{a0}' | '\u{2007}' | '\u{202f}' => out.push(' '),
            '\u{200b}' | '\u{feff}' => {}
            '\u{201c}' | '\u{201d}' => out.push('"'),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Quotes and brackets as a page or a ticket system writes them.
fn without_entities(text: &str) -> std::borrow::Cow<'_, str> {
    const ENTITIES: &[(&str, &str)] = &[
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    // Where no quote is written so, an ampersand may be part of an URL.
    if !ENTITIES[..4]
        .iter()
        .any(|(entity, _)| text.contains(entity))
    {
        return text.into();
    }
    let replaced = ENTITIES
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| {
            text.replace(entity, character)
        });
    replaced.into()
}

/// Skips the rest of an escape sequence: `ESC [ ... letter`, `ESC ] ... BEL`, or one character.
fn escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            while let Some(c) = characters.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        Some(']') => {
            while let Some(c) = characters.next_if(|c| !matches!(c, '\n' | '\u{1b}')) {
                if c == '\u{7}' {
                    return;
                }
            }
            if characters.next_if_eq(&'\u{1b}').is_some() {
                characters.next_if_eq(&'\\');
            }
        }
        _ => {}
    }
}

/// Narrowest and widest terminal whose breaks are undone.
const EDGES: std::ops::RangeInclusive<usize> = 60..=240;

/// Puts lines together again that a terminal broke at its right edge. `starts` says that a line begins something of its own.
pub(super) fn unbroken(text: &str, starts: impl Fn(&str) -> bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    let Some(edge) = edge(&widths) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    for (at, line) in lines.iter().enumerate() {
        out.push_str(line);
        let Some(next) = lines.get(at + 1) else { break };
        // A space at the edge is lost in most copies.
        let full = widths[at] == edge || (widths[at] + 1 == edge && !next.starts_with(' '));
        if full && !next.trim().is_empty() && !starts(next) {
            if widths[at] < edge {
                out.push(' ');
            }
        } else {
            out.push('\n');
        }
    }
    out
}

/// The column at which lines were broken: the longest width, when lines often end just there.
fn edge(widths: &[usize]) -> Option<usize> {
    let edge = widths.iter().copied().max()?;
    let full = widths.iter().filter(|width| **width == edge).count();
    let usual = matches!(edge, 72 | 80 | 100 | 120 | 132 | 160);
    (EDGES.contains(&edge) && widths.len() > 1 && (full > 1 || usual)).then_some(edge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_control_characters_go() {
        assert_eq!(
            plain("\u{1b}[31mError\u{1b}[0m: \u{1b}]0;title\u{7}a\r\nb\u{0}\u{7}\tc\u{1b}"),
            "Error: a\nb\tc"
        );
    }

    #[test]
    fn lines_broken_at_the_edge_are_whole_again() {
        let whole = "Failed to pull image \"reg.example.com/team/app:1\": rpc error: code = NotFound desc = failed to pull \
                     and unpack image: not found";
        for edge in [72, 80] {
            let broken: Vec<String> = whole
                .chars()
                .collect::<Vec<_>>()
                .chunks(edge)
                .map(|chunk| chunk.iter().collect())
                .collect();
            assert_eq!(unbroken(&broken.join("\n"), |_| false), whole);
            let trimmed: Vec<&str> = broken.iter().map(|line| line.trim_end()).collect();
            assert_eq!(unbroken(&trimmed.join("\n"), |_| false), whole);
        }
        let rows = format!("{}\n{}", "a".repeat(80), "b".repeat(80));
        assert_eq!(unbroken(&rows, |_| true), rows);
    }
}
