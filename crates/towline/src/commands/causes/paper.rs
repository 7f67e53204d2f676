//! A page for a terminal: headings in bold, blocks indented, sentences wrapped. Commands and files keep their lines, to be copied.

use anstyle::{AnsiColor, Style};

use crate::output::{BOLD, styled, wrapped};

/// Code in a sentence.
const CODE: Style = AnsiColor::Cyan.on_default();
/// Columns that a block is indented by.
const INDENT: usize = 4;
/// Columns of the first column of a table.
const KEY: usize = 16;

/// Lays out the Markdown that pages are written in: headings, one table, lists, blocks, code and links in sentences.
pub(super) fn laid_out(markdown: &str, width: usize) -> String {
    let mut paper = Paper {
        width,
        lines: Vec::new(),
        open: String::new(),
    };
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            paper.close();
            let block = lines.by_ref().take_while(|line| !line.starts_with("```"));
            paper.block(kind, block);
        } else {
            paper.line(line);
        }
    }
    paper.close();
    paper.lines.join("\n").trim_end().to_owned()
}

struct Paper {
    width: usize,
    lines: Vec<String>,
    /// The paragraph or the entry of a list that goes on.
    open: String,
}

impl Paper {
    fn line(&mut self, line: &str) {
        if line.is_empty() {
            self.close();
            self.lines.push(String::new());
        } else if line.starts_with('#') {
            self.close();
            let heading = line.trim_start_matches('#').trim();
            self.lines.push(styled(BOLD, heading));
        } else if let Some(cells) = line.strip_prefix("| ") {
            self.row(cells);
        } else {
            if line.starts_with("- ") {
                self.close();
            }
            self.open.push_str(line.trim_end());
            self.open.push(' ');
        }
    }

    /// A row of two cells; the header and the rule below it say nothing.
    fn row(&mut self, cells: &str) {
        if cells.starts_with('|') || cells.starts_with("---") {
            return;
        }
        let (key, value) = cells.split_once(" | ").unwrap_or((cells, ""));
        let value = value.trim_end_matches(" |");
        let text = format!("{key:<KEY$}{}", wrapped(value, self.width, KEY));
        self.lines.push(text);
    }

    /// What is open, wrapped.
    fn close(&mut self) {
        let text = std::mem::take(&mut self.open);
        let text = without_links(text.trim());
        if text.is_empty() {
            return;
        }
        let indent = if text.starts_with("- ") { 2 } else { 0 };
        let text = wrapped(&text, self.width, indent);
        self.lines.push(with_code(&text));
    }

    /// A message is wrapped; what is to be copied is not.
    fn block<'a>(&mut self, kind: &str, block: impl Iterator<Item = &'a str>) {
        let margin = " ".repeat(INDENT);
        for line in block {
            let text = if kind == "text" {
                wrapped(line, self.width, INDENT)
            } else {
                line.to_owned()
            };
            let line = format!("{margin}{text}");
            self.lines.push(line.trim_end().to_owned());
        }
    }
}

/// Links by their words.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some(start), Some((_, behind))) = (before.rfind('['), after.split_once(')')) else {
            break;
        };
        plain.push_str(&before[..start]);
        plain.push_str(&before[start + 1..]);
        rest = behind;
    }
    plain.push_str(rest);
    plain
}

/// What stands between backticks in its style, without them.
fn with_code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // An odd number of backticks closes nothing.
    if parts.len().is_multiple_of(2) {
        return text.to_owned();
    }
    let parts = parts.iter().enumerate().map(|(at, part)| {
        if at % 2 == 1 {
            styled(CODE, part)
        } else {
            (*part).to_owned()
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_cause::{Cause, page};

    fn plain(markdown: &str, width: usize) -> String {
        anstream::adapter::strip_str(&laid_out(markdown, width)).to_string()
    }

    #[test]
    fn a_page_is_laid_out() {
        let page = "# Name\n\nIt has `code` and [a link](Other.md) in\na sentence.\n\n| | |\n| --- | --- |\n| group | Dns |\n\n## How\n\n- one entry that is\n  long\n- two\n\n```text\na message of several words\n```\n\n```sh\ncommand that is longer than the width --flag\n```\n";
        let want = "Name\n\nIt has code and a link\nin a sentence.\n\ngroup           Dns\n\nHow\n\n- one entry that is\n  long\n- two\n\n    a message of several\n    words\n\n    command that is longer than the width --flag";
        assert_eq!(plain(page, 24), want);
        let styled = laid_out(page, 24);
        assert!(styled.starts_with("\u{1b}[1mName"), "{styled:?}");
    }

    #[test]
    fn every_page_fits_and_loses_nothing_that_is_copied() {
        for cause in Cause::ALL {
            let text = plain(page(cause), 80);
            assert!(!text.contains("```") && !text.contains("]("), "{cause}");
            let copied = page(cause).split("```sh\n").skip(1);
            for command in copied.filter_map(|block| block.split("\n```").next()) {
                for line in command.lines() {
                    assert!(text.contains(line), "{cause}: {line}");
                }
            }
            let sentences = text.lines().filter(|line| !line.starts_with("    "));
            for line in sentences {
                let one_word = !line.trim().trim_start_matches("- ").contains(' ');
                assert!(line.chars().count() <= 80 || one_word, "{cause}: {line}");
            }
        }
    }
}
