//! The lab: every scenario shows its cause, and what mends it makes it run.

use std::collections::BTreeSet;

use serde_json::Value;

use towline_sys::testing::need_program;

use crate::support::containerd::need_containerd;
use crate::support::program::{text, towline};

/// Causes that are shown, at least; all but some ten of them on a real node.
const CAUSES: usize = 70;
/// Causes that are proven, at least.
const PROVEN: usize = 52;

#[test]
fn every_scenario_is_answered_right_and_mended() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let output = towline()
        .args(["lab", "run", "--all", "-o", "json"])
        .output()
        .unwrap();
    let run: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    assert_eq!(run["kind"], "LabRun");
    assert_eq!(
        run["appliedWith"] == "kubectl",
        need_program("kubectl").is_some()
    );
    let trials = run["trials"].as_array().unwrap();
    let failed: Vec<&Value> = trials
        .iter()
        .filter(|trial| {
            trial["right"] != true || trial["fixed"] == false || trial["error"] != Value::Null
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(output.status.success(), "{}", text(&output));
    let causes: BTreeSet<&str> = trials
        .iter()
        .filter_map(|trial| trial["cause"].as_str())
        .collect();
    assert!(causes.len() >= CAUSES, "{} causes", causes.len());
    let proven: BTreeSet<&str> = trials
        .iter()
        .filter(|trial| trial["confidence"] == "proven")
        .filter_map(|trial| trial["cause"].as_str())
        .collect();
    assert!(proven.len() >= PROVEN, "{} are proven", proven.len());
}

/// A few of each group, where the words are another runtime's; `TOWLINE_LONG` has all of them played.
#[test]
fn scenarios_are_answered_right_on_containerd() {
    if !need_containerd() {
        return;
    }
    let few = [
        "tag-typo",
        "no-login",
        "wrong-password",
        "dns-no-name",
        "connection-refused",
        "unknown-authority",
        "rate-limited",
        "blob-gone",
        "layer-changed",
        "other-platform",
        "mirror-fails",
    ];
    let chosen: &[&str] = if std::env::var_os("TOWLINE_LONG").is_some() {
        &["--all"]
    } else {
        &few
    };
    let output = towline()
        .args(["lab", "run", "--runtime", "containerd", "-o", "json"])
        .args(chosen)
        .output()
        .unwrap();
    let run: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    assert_eq!(run["runtime"], "containerd");
    let trials = run["trials"].as_array().unwrap();
    assert!(trials.len() >= few.len(), "{run:#}");
    let failed: Vec<&Value> = trials
        .iter()
        .filter(|trial| {
            trial["right"] != true || trial["fixed"] == false || trial["error"] != Value::Null
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn scenarios_are_listed_and_an_unknown_one_is_refused() {
    let list = towline().args(["lab", "list"]).output().unwrap();
    assert!(list.status.success(), "{}", text(&list));
    assert!(text(&list).contains("tag-typo"), "{}", text(&list));
    let json = towline()
        .args(["lab", "list", "-o", "json"])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["kind"], "LabScenarios");
    if towline_sys::testing::need_root() {
        let unknown = towline().args(["lab", "run", "no-such"]).output().unwrap();
        assert_eq!(unknown.status.code(), Some(64), "{}", text(&unknown));
        assert!(
            text(&unknown).contains("towline lab list"),
            "{}",
            text(&unknown)
        );
    }
}
