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
    assert!(page.starts_with("# TagNotFound"), "{page}");
    let (code, error) = run(&["causes", "MoonPhase"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("hint:"), "{error}");
    let (_, list) = run(&["causes"]);
    assert_eq!(list.lines().count(), 80);
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
