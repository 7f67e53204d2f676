//! Pulls by a process that is not root.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use towline_images::PullRequest;
use towline_keyring::Credential;
use towline_lab::image::{Builder, Layer};
use towline_oci::Reference;
use towline_sys::testing::need_root;

use crate::support::{Registry, assert_clean, open, xattr};

const ROOT: &str = "TOWLINE_TEST_UNPRIVILEGED_ROOT";
const IMAGE: &str = "TOWLINE_TEST_UNPRIVILEGED_IMAGE";

/// The process that is not root: does nothing unless the test below started it.
#[tokio::test]
async fn child() {
    let (Some(root), Ok(image)) = (std::env::var_os(ROOT), std::env::var(IMAGE)) else {
        return;
    };
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let root = Path::new(&root);
    let images = open(root, |options| assert!(options.unprivileged));
    let reference = Reference::parse(&image).unwrap();
    let pulled = images
        .pull(PullRequest::new(reference, Credential::Anonymous))
        .await
        .map_err(|failure| failure.chain())
        .unwrap();
    let dir = images.lower_dirs(&pulled)[0].clone();
    let shut = std::fs::metadata(dir.join("shut")).unwrap();
    assert_eq!(shut.mode() & 0o7777, 0o555);
    assert_eq!(std::fs::read(dir.join("shut/file")).unwrap(), b"x");
    assert_eq!(xattr(&dir.join("shut/file"), "user.note").unwrap(), b"n");
    let gone = std::fs::symlink_metadata(dir.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(
        xattr(&dir.join("opaque"), "user.overlay.opaque").unwrap(),
        b"y"
    );
    assert!(!dir.join("null").exists(), "only root makes devices");
    images.remove(&pulled.id.to_string()).await.unwrap();
    assert!(!dir.exists(), "also what forbids its removal");
    assert_clean(root);
}

#[tokio::test]
async fn owners_and_devices_are_left_out_and_all_else_is_there() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let layer = Layer::new()
        .directory("shut", 0o555)
        .owner(33, 44)
        .file("shut/file", "x")
        .mode(0o444)
        .owner(70_000, 70_000)
        .xattr("user.note", b"n")
        .xattr(
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .symlink("link", "shut/file")
        .owner(1, 1)
        .device("null", 1, 3)
        .whiteout("gone")
        .opaque("opaque");
    let reference = registry
        .push(&Builder::new().layer(layer).build(), "plain")
        .await;
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&root, Some(65_534), Some(65_534)).unwrap();
    // Where the test program lies a stranger may not go.
    let program = home.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    command
        .args([
            "--exact",
            "unprivileged::child",
            "--test-threads",
            "1",
            "--nocapture",
        ])
        .env(ROOT, &root)
        .env(IMAGE, reference.to_string())
        .env("TMPDIR", &root)
        .gid(65_534)
        .uid(65_534)
        .current_dir("/");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}
