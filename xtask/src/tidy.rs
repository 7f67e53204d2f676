//! Budgets and habits that no lint checks.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Lines a source file may have before its tests.
const MAX_LINES: usize = 600;
/// Files that may be longer, because they are one table and nothing else.
const TABLES: [&str; 1] = ["crates/cause/src/vocabulary.rs"];

/// What is not tidy, one line each.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in tracked(root)? {
        let path = root.join(&file);
        if !path.is_file() {
            continue;
        }
        if is(&file, "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {file}"))?;
            source(&file, &text, &mut problems);
        }
        if is(&file, "rs") || is(&file, "md") || is(&file, "toml") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {file}"))?;
            foreign_words(&file, &text, &mut problems);
        }
    }
    Ok(problems)
}

fn is(file: &str, extension: &str) -> bool {
    Path::new(file)
        .extension()
        .is_some_and(|end| end == extension)
}

fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn source(file: &str, text: &str, problems: &mut Vec<String>) {
    let is_test = file.contains("/tests/");
    if !text.trim_start().starts_with("//!") {
        problems.push(format!(
            "{file}: does not start with //! and what it is for"
        ));
    }
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count();
    if lines > MAX_LINES && !is_test && !TABLES.contains(&file) {
        problems.push(format!(
            "{file}: {lines} lines before its tests, the budget is {MAX_LINES}"
        ));
    }
}

/// Marks of unfinished work and paths of one machine have no place in the tree.
fn foreign_words(file: &str, text: &str, problems: &mut Vec<String>) {
    if file.starts_with("xtask/") {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for word in ["TODO", "FIXME", "XXX:", "/work/", "unimplemented!("] {
            if line.contains(word) {
                problems.push(format!("{file}:{}: {word:?} has no place here", number + 1));
            }
        }
    }
}
