//! Lines that a terminal broke, put together again: a message is one line.

use std::borrow::Cow;

/// Narrowest and widest terminal whose breaks are undone.
const EDGES: std::ops::RangeInclusive<usize> = 60..=240;

/// The text as one line, where its lines are what a terminal's edge made of one line; else as it is.
pub(crate) fn undone(text: &str) -> Cow<'_, str> {
    if !text.trim_end().contains('\n') {
        return Cow::Borrowed(text);
    }
    let lines: Vec<&str> = text.trim_end().split('\n').collect();
    let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    let (Some(edge), Some(last)) = (widths.iter().max().copied(), widths.last().copied()) else {
        return Cow::Borrowed(text);
    };
    let broken = &widths[..widths.len() - 1];
    if !EDGES.contains(&edge) || last > edge {
        return Cow::Borrowed(text);
    }
    // Two lines are a broken one only at an edge that terminals have: the second may as well be what the server said.
    let usual = matches!(edge, 72 | 80 | 100 | 120 | 132 | 160) || broken.len() > 1;
    if usual && broken.iter().all(|width| *width == edge) {
        return Cow::Owned(lines.concat());
    }
    // Broken between words: each line is full, since the next word had no room in it.
    let full = broken.len() > 1
        && edge >= 72
        && lines.windows(2).zip(&widths).all(|(pair, width)| {
            let word = pair[1].split(' ').next().unwrap_or_default();
            !word.is_empty() && width + 1 + word.chars().count() > edge
        });
    if full {
        return Cow::Owned(lines.join(" "));
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_is_whole_again_and_other_lines_stay() {
        let whole = "Failed to pull image \"reg.example.com/team/app:1\": rpc error: code = NotFound desc = failed to pull and \
                     unpack image \"reg.example.com/team/app:1\": failed to resolve reference \"reg.example.com/team/app:1\": not found";
        let characters: Vec<char> = whole.chars().collect();
        let hard: Vec<String> = characters
            .chunks(80)
            .map(|line| line.iter().collect())
            .collect();
        assert_eq!(undone(&hard.join("\n")), whole);
        let (mut soft, mut width) = (String::new(), 0);
        for word in whole.split(' ') {
            if width > 0 && width + 1 + word.len() > 80 {
                soft.push('\n');
                width = 0;
            } else if width > 0 {
                soft.push(' ');
                width += 1;
            }
            soft.push_str(word);
            width += word.len();
        }
        assert_eq!(undone(&soft), whole);
        for other in ["denied: no\nunauthorized: no", "one line", "one\n\ntwo", ""] {
            assert_eq!(undone(other), other);
        }
    }
}
