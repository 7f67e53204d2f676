//! The tables of `docs/security.md` name tests that exist, and miss no row.

use std::collections::BTreeSet;
use std::path::Path;

/// The tests that a line names: between backticks, `file::function`.
fn tests(line: &str) -> Vec<(&str, &str)> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("crates/"))
        .filter_map(|name| name.rsplit_once("::"))
        .collect()
}

#[test]
fn every_row_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut rows = BTreeSet::new();
    let mut holes = 0;
    let mut part = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            part = title;
        }
        let Some(first) = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split(" |").next())
        else {
            continue;
        };
        let is_row = match part {
            "Known holes" => first != "Id",
            "What registries and networks do wrong" => first != "Row",
            _ => false,
        };
        if !is_row {
            continue;
        }
        let named = tests(line);
        assert!(!named.is_empty(), "{first} names no test");
        for (file, function) in named {
            let source = std::fs::read_to_string(root.join(file))
                .unwrap_or_else(|error| panic!("{first}: {file}: {error}"));
            // With its attribute: a helper of that name is no test.
            let at = source
                .find(&format!("fn {function}("))
                .unwrap_or_else(|| panic!("{first}: {file} has no {function}"));
            let before: Vec<&str> = source[..at].lines().rev().take(8).collect();
            assert!(
                before
                    .iter()
                    .any(|line| line.contains("test]") || line.contains("::test(")),
                "{first}: {function} of {file} is no test"
            );
        }
        if part == "Known holes" {
            holes += 1;
        } else {
            assert!(rows.insert(first.to_owned()), "{first} is there twice");
        }
    }
    let all: BTreeSet<String> = (1..=60).map(|row| format!("A{row:02}")).collect();
    assert_eq!(rows, all);
    assert!(holes >= 35, "{holes}");
}
