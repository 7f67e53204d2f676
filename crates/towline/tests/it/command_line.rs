//! The command line itself: help, exit codes, errors with a hint.

use crate::support::program::{text, towline};

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = towline()
        .args(args)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn help_teaches_and_a_wrong_command_line_is_64() {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["up", "demo", "why", "pull", "check", "causes", "64"] {
        assert!(help.contains(word), "{word}");
    }
    assert_eq!(run(&["why"]).0, Some(64));
    assert_eq!(run(&["no-such-command"]).0, Some(64));
    assert_eq!(run(&["why", "deployment/"]).0, Some(64));
    assert_eq!(run(&["why", "nginx", "pod/web"]).0, Some(64));
    assert_eq!(run(&["why", "-A", "pod/web"]).0, Some(64));
    let (code, error) = run(&["why", "deployment/web"]);
    assert_eq!(
        code,
        Some(2),
        "without a cluster it cannot be told: {error}"
    );
}

#[test]
fn causes_have_pages() {
    let (code, page) = run(&["causes", "tagnotfound"]);
    assert_eq!(code, Some(0));
    let docs = include_str!("../../../../docs/causes/TagNotFound.md");
    assert_eq!(page.trim_end(), docs.trim_end(), "plain in a pipe");
    let (_, page) = run(&["causes", "TagNotFound", "-o", "json"]);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["kind"], "CausePage");
    assert_eq!(page["steps"], serde_json::json!(["resolve"]));
    for section in ["about", "looks", "proof", "fix", "prevention"] {
        let text = page["sections"][section].as_str().unwrap();
        assert!(text.len() > 80 && docs.contains(text), "{section}: {text}");
    }
    let said = page["sections"]["messages"].as_array().unwrap();
    assert!(said.iter().all(|one| docs.contains(one.as_str().unwrap())));
}

#[test]
fn causes_are_found_by_words_and_by_near_names() {
    let (code, list) = run(&["causes"]);
    assert_eq!(code, Some(0));
    let names = list.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(names, 79, "{list}");
    assert!(
        list.starts_with("Reference: the name as written\n"),
        "{list}"
    );
    let (code, list) = run(&["causes", "dns"]);
    assert_eq!(code, Some(0));
    assert!(
        list.contains("  DnsFailed ") && !list.contains("DigestMismatch"),
        "{list}"
    );
    let (code, page) = run(&["causes", "pull QPS exceeded"]);
    assert_eq!(code, Some(0));
    assert!(page.starts_with("# PullThrottled\n"), "{page}");
    let (code, error) = run(&["causes", "TagNotFond"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("did you mean TagNotFound"), "{error}");
    let (code, error) = run(&["causes", "MoonPhase"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("hint:"), "{error}");
}

#[test]
fn a_missing_cluster_is_said_with_a_hint() {
    let (code, error) = run(&["get", "pods", "--kubeconfig", "/nonexistent/kubeconfig"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("/nonexistent/kubeconfig") && error.contains("hint:"),
        "{error}"
    );
}

#[test]
fn completion_is_a_script() {
    assert!(run(&["completion", "bash"]).1.contains("_towline"));
}

#[test]
fn check_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: app\n    image: 127.0.0.1:1/team/app:v1\n").unwrap();
    let (code, answer) = run(&["check", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(
        answer.contains("web.yaml:7: Pod/web 127.0.0.1:1/team/app:v1"),
        "{answer}"
    );
    assert!(answer.contains("RegistryIsLocalhost"), "{answer}");
}
