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

/// Holes that were found elsewhere on the way of a pull: each has a row, or a reason why it is not there to attack.
const KNOWN: &[&str] = &[
    "CVE-2017-11468",
    "CVE-2019-14271",
    "CVE-2019-5736",
    "CVE-2020-15157",
    "CVE-2020-15257",
    "CVE-2020-1702",
    "CVE-2021-30465",
    "CVE-2021-32760",
    "CVE-2021-41103",
    "CVE-2021-41190",
    "CVE-2021-43816",
    "CVE-2022-0811",
    "CVE-2022-23471",
    "CVE-2022-23648",
    "CVE-2022-2989",
    "CVE-2022-2990",
    "CVE-2022-2995",
    "CVE-2022-31030",
    "CVE-2022-36109",
    "CVE-2022-4318",
    "CVE-2023-2253",
    "CVE-2023-25153",
    "CVE-2023-25173",
    "CVE-2024-1753",
    "CVE-2024-21626",
    "CVE-2024-25621",
    "CVE-2024-3154",
    "CVE-2024-3727",
    "CVE-2024-40635",
    "CVE-2024-5154",
    "CVE-2024-9407",
    "CVE-2024-9675",
    "CVE-2024-9676",
    "CVE-2025-0750",
    "CVE-2025-24976",
    "CVE-2025-31133",
    "CVE-2025-4437",
    "CVE-2025-47290",
    "CVE-2025-52565",
    "CVE-2025-52881",
    "CVE-2025-62518",
    "CVE-2025-64329",
    "CVE-2026-12566",
    "CVE-2026-27771",
    "CVE-2026-31801",
    "CVE-2026-33056",
    "CVE-2026-33540",
    "CVE-2026-35172",
    "CVE-2026-41888",
    "CVE-2026-50163",
    "CVE-2026-50195",
    "CVE-2026-53488",
    "CVE-2026-53489",
    "CVE-2026-53492",
    "GHSA-5j5w-g665-5m35",
    "GHSA-7ww5-4wqc-m92c",
    "GHSA-j4xf-2g29-59ph",
    "GHSA-j6hm-v3x2-qv6j",
    "GHSA-qq97-vm5h-rrhg",
    "RUSTSEC-2026-0112",
    "RUSTSEC-2026-0113",
];

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
    assert!(holes >= 45, "{holes}");
    let missing = KNOWN.iter().filter(|id| !text.contains(**id));
    assert_eq!(missing.collect::<Vec<_>>(), [&""; 0]);
}
