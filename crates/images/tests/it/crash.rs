//! A process killed in the middle of a pull leaves a store that opens, is clean, and goes on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Layer};
use towline_oci::Reference;
use towline_store::Store;
use towline_sys::proc::ChildGuard;

use crate::support::{Registry, UNPACKER, assert_clean, noise, open, unpacker};

const ROOT: &str = "TOWLINE_TEST_PULL_ROOT";
const IMAGE: &str = "TOWLINE_TEST_PULL_IMAGE";

/// The process that is killed: does nothing unless [`pull_in_a_child`] started it.
#[tokio::test]
async fn child() {
    let (Some(root), Ok(image)) = (std::env::var_os(ROOT), std::env::var(IMAGE)) else {
        return;
    };
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let images = open(root.as_ref(), |_| {});
    let reference = Reference::parse(&image).unwrap();
    let request =
        towline_images::PullRequest::new(reference, towline_keyring::Credential::Anonymous);
    images.pull(request).await.unwrap();
}

pub(crate) fn pull_in_a_child(root: &Path, reference: &Reference) -> ChildGuard {
    pull_in_a_child_by(&unpacker(), root, reference)
}

/// With this program as the helper that unpacks.
pub(crate) fn pull_in_a_child_by(program: &Path, root: &Path, reference: &Reference) -> ChildGuard {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::child", "--test-threads", "1"])
        .env(ROOT, root)
        .env(UNPACKER, program)
        .env(IMAGE, reference.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ChildGuard::spawn(&mut command).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_any_moment_leaves_whole_things_only() {
    let registry = Registry::start().await;
    let files = |seed: u64| {
        (0..40).fold(Layer::new(), |layer, n| {
            layer.file(&format!("dir{seed}/f{n}"), noise(40_000, seed * 100 + n))
        })
    };
    let built = Builder::new()
        .layer(files(1))
        .layer(files(2).compression(Compression::Zstd))
        .layer(files(3).compression(Compression::None))
        .layer(files(4))
        .build();
    let reference = registry.push(&built, "killed").await;
    // The whole takes about a second and a half.
    let slow = Fault::Trickle {
        bytes: 16 << 10,
        every_millis: 10,
    };
    registry.break_by(vec![Rule::on("*/blobs/*", slow).method("GET")]);
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    let mut finished = false;
    for round in 0..14_u64 {
        let mut child = pull_in_a_child(&root, &reference);
        // At another moment each time: while it opens, downloads, unpacks, records.
        let after = Duration::from_millis(60 + 67 * round);
        let ended = tokio::task::block_in_place(|| child.wait_timeout(after)).unwrap();
        drop(child);
        finished |= ended.is_some_and(|status| status.success());
        let store = Store::open(&root).unwrap();
        assert_clean(&root);
        assert_eq!(store.verify().unwrap(), []);
    }
    registry.break_by(Vec::new());
    let images = open(&root, |_| {});
    let request =
        towline_images::PullRequest::new(reference, towline_keyring::Credential::Anonymous);
    let image = images.pull(request).await.unwrap();
    let dirs = images.lower_dirs(&image);
    for (seed, dir) in (1..=4).rev().zip(dirs) {
        for n in 0..40 {
            let bytes = std::fs::read(dir.join(format!("dir{seed}/f{n}"))).unwrap();
            assert!(
                bytes == noise(40_000, seed * 100 + n),
                "layer {seed} file {n}"
            );
        }
    }
    let asked = registry.blobs_asked();
    assert!(
        finished || asked.iter().any(|(_, range)| range.is_some()),
        "nothing was resumed: {asked:?}"
    );
}
