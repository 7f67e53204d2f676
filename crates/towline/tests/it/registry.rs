//! `towline registry` and what it does with what registries hold: ours, and the real docker-registry.

use std::net::SocketAddr;

use serde_json::Value;
use towline_sys::testing::need_program;

use crate::support::eventually;
use crate::support::program::{Guard, free_port, part, text, towline};
use crate::support::registry::{DockerRegistry, hello, push};

/// Runs `towline registry ...`, which must end like this; what it printed.
fn run(args: &[&str], expected: i32) -> String {
    let output = towline().arg("registry").args(args).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(expected),
        "{args:?}: {}",
        text(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn images_are_carried_looked_at_and_deleted() {
    if need_program("docker-registry").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ours: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let root = path("root");
    let _ours: Guard = part(
        folder.path(),
        "registry",
        &["--listen", &ours.to_string(), "--root", &root],
    );
    eventually("the registry listens", 30, || {
        std::net::TcpStream::connect(ours).map_err(|error| error.to_string())
    });
    let theirs = DockerRegistry::open();
    let image = hello("carried");
    push(&image, theirs.address, "team/app", "v1", None);
    let digest = image.digest().to_string();
    let of = |address: SocketAddr, name: &str| format!("{address}/{name}");

    // From the real registry to ours, within ours, out into a layout, and from there back to the real one.
    let copied = run(
        &[
            "copy",
            &of(theirs.address, "team/app:v1"),
            &of(ours, "team/app:v1"),
        ],
        0,
    );
    assert_eq!(copied.trim(), digest);
    run(
        &["copy", &of(ours, "team/app:v1"), &of(ours, "other/app:v2")],
        0,
    );
    let layout = path("layout");
    assert_eq!(
        run(&["export", &of(ours, "team/app:v1"), &layout], 0).trim(),
        digest
    );
    assert_eq!(
        run(&["import", &layout, &of(theirs.address, "back/app:v3")], 0).trim(),
        digest
    );

    assert_eq!(run(&["ls", &ours.to_string()], 0), "other/app\nteam/app\n");
    assert_eq!(
        run(&["ls", &theirs.address.to_string()], 0),
        "back/app\nteam/app\n"
    );
    assert_eq!(run(&["tags", &of(theirs.address, "back/app")], 0), "v3\n");
    let seen = run(
        &["inspect", "-o", "json", &of(theirs.address, "back/app:v3")],
        0,
    );
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["digest"], digest.as_str());
    assert_eq!(seen["parts"][0]["what"], "config");

    // Deleted, collected by the registry that runs, and found well.
    let young = run(&["gc", "--root", &root, "--grace", "0", "--dry-run"], 0);
    assert!(young.starts_with("0 blobs"), "{young}");
    run(&["rm", &of(ours, &format!("other/app@{digest}"))], 0);
    run(&["rm", &of(ours, &format!("team/app@{digest}"))], 0);
    assert_eq!(run(&["tags", &of(ours, "team/app")], 0), "");
    let went: Value = serde_json::from_str(&run(
        &["gc", "--root", &root, "--grace", "0", "-o", "json"],
        0,
    ))
    .unwrap();
    assert!(went["blobs"].as_u64().unwrap() >= 3, "{went}");
    assert!(run(&["check", "--root", &root], 0).contains(" 0 wrong"));
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let shelf = root.join("blobs/sha256/00");
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join("0".repeat(64)), "not this").unwrap();
    let said = run(&["check", "--root", &root.display().to_string()], 1);
    assert!(said.contains("its bytes have another digest"), "{said}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    std::fs::write(&file, "limits:\n  blobb: 1GiB\n").unwrap();
    let (root, file) = (folder.path().join("root"), file.display().to_string());
    let output = towline()
        .args([
            "registry",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &file,
            "--root",
        ])
        .arg(root)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("registry.yaml: ") && said.contains("line 2, column 3"),
        "{said}"
    );
}
