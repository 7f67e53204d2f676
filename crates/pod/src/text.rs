//! Ways in which Kubernetes prints values inside its texts.

use std::fmt::Write as _;

/// A string in double quotes as Go's `%q` prints it: image names in events and messages.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if !printable(c) => {
                let _ = if (c as u32) < 0x1_0000 {
                    write!(out, "\\u{:04x}", c as u32)
                } else {
                    write!(out, "\\U{:08x}", c as u32)
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Close to what Go calls printable: no controls, no separators but the plain space, none of the invisible marks.
fn printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32, 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xe000..=0xf8ff))
}

/// Names in brackets, separated by one space, as Go prints a list: `[a b]`.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    format!("[{}]", names.join(" "))
}

/// A pod as the kubelet names it in messages: `name_namespace(uid)`.
pub fn pod(name: &str, namespace: &str, uid: &str) -> String {
    format!("{name}_{namespace}({uid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("nginx:1", r#""nginx:1""#),
            ("", r#""""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("a\n\t\u{1}", r#""a\n\t\x01""#),
            ("ü\u{a0}\u{200b}", "\"ü\\u00a0\\u200b\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(list(["a", "b"]), "[a b]");
        assert_eq!(list([]), "[]");
        assert_eq!(pod("p", "n", "u"), "p_n(u)");
    }
}
