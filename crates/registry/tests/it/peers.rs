//! Clients that others wrote push and pull.

use std::path::Path;

use tokio::process::Command;
use towline_lab::image;
use towline_sys::testing::need_program;

use crate::client::Registry;

async fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out() {
    let Some(skopeo) = need_program("skopeo") else {
        return;
    };
    let registry = Registry::open().await;
    let folder = tempfile::tempdir().unwrap();
    let image = image::guest().build();
    let layout = folder.path().join("in");
    image.write_oci_layout(&layout, "v1").unwrap();
    let remote = format!("docker://{}/team/guest", registry.address());
    let source = format!("oci:{}:v1", layout.display());
    let target = format!("{remote}:v1");
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    )
    .await;
    let docker = format!("{remote}:docker");
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--format=v2s2",
            &source,
            &docker,
        ],
    )
    .await;
    let back = format!("dir:{}", folder.path().join("out").display());
    run(
        &skopeo,
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--src-tls-verify=false",
            &target,
            &back,
        ],
    )
    .await;
    let manifest = std::fs::read(folder.path().join("out/manifest.json")).unwrap();
    assert_eq!(manifest, image.manifest.bytes);
    let listed = run(&skopeo, &["list-tags", "--tls-verify=false", &remote]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Tags"], serde_json::json!(["docker", "v1"]));
    run(&skopeo, &["delete", "--tls-verify=false", &docker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_copies_in_and_out() {
    let Some(crane) = need_program("crane") else {
        return;
    };
    let registry = Registry::open().await;
    let folder = tempfile::tempdir().unwrap();
    let image = image::guest().build();
    image
        .push(registry.address(), "team/guest", "v1", None)
        .await
        .unwrap();
    let name = format!("{}/team/guest", registry.address());
    let digest = run(&crane, &["digest", &format!("{name}:v1")]).await;
    assert_eq!(digest.trim(), image.digest());
    let file = folder.path().join("guest.tar");
    run(
        &crane,
        &["pull", &format!("{name}:v1"), file.to_str().unwrap()],
    )
    .await;
    run(
        &crane,
        &[
            "push",
            file.to_str().unwrap(),
            &format!("{}/other/guest:v2", registry.address()),
        ],
    )
    .await;
    run(
        &crane,
        &[
            "copy",
            &format!("{name}:v1"),
            &format!("{}/third/guest:v3", registry.address()),
        ],
    )
    .await;
    assert_eq!(run(&crane, &["ls", &name]).await.trim(), "v1");
    let layers = run(
        &crane,
        &[
            "manifest",
            &format!("{}/other/guest:v2", registry.address()),
        ],
    )
    .await;
    assert!(layers.contains(&image.blobs[0].digest), "{layers}");
}
