//! Archives of images: what skopeo and podman write is read, and what is written they read.

use std::path::Path;
use std::process::Command;

use towline_sys::testing::{need_program, need_root};

use crate::support::program::{text, towline};
use crate::support::registry::{OurRegistry, hello, push};

/// Runs a program, which must end well; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn registry(args: &[&str]) -> String {
    run(towline().arg("registry").args(args))
}

fn skopeo(args: &[&str]) -> String {
    run(Command::new("skopeo").args(args))
}

/// The ID of an image in a registry: the digest of its config.
fn id(image: &str) -> String {
    let format = ["inspect", "--raw", "--tls-verify=false"];
    let raw = skopeo(&[&format[..], &[&format!("docker://{image}")]].concat());
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn archives_of_skopeo_and_ours_are_each_others() {
    if need_program("skopeo").is_none() {
        return;
    }
    let ours = OurRegistry::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let at = |name: &str| format!("{}/{name}", ours.address);
    let image = hello("packed");
    push(&image, ours.address, "team/app", "v1", None);
    let digest = image.digest().to_owned();

    let file = path("ours.tar");
    let export = [
        "export",
        &at("team/app:v1"),
        &format!("docker-archive:{file}"),
    ];
    assert_eq!(registry(&export), digest);
    // As docker's form and as OCI's it is the same image.
    let config = skopeo(&[
        "inspect",
        "--config",
        "--raw",
        &format!("docker-archive:{file}"),
    ]);
    assert_eq!(
        towline_lab::image::sha256(config.as_bytes()),
        image.config_digest
    );
    let target = format!("docker://{}", at("skopeo/oci:v1"));
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("oci-archive:{file}"),
        &target,
    ]);
    let digests = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    assert_eq!(skopeo(&[&digests[..], &[&target]].concat()), digest);
    let target = format!("docker://{}", at("skopeo/docker:v1"));
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("docker-archive:{file}"),
        &target,
    ]);
    assert_eq!(id(&at("skopeo/docker:v1")), image.config_digest);
    assert_eq!(registry(&["import", &file, &at("back/ours:v1")]), digest);

    // What skopeo writes: the older form, which keeps the image's ID, and a layout, which keeps the digest.
    let source = format!("docker://{}", at("team/app:v1"));
    let theirs = path("theirs.tar");
    let to = format!("docker-archive:{theirs}:team/app:v1");
    skopeo(&["copy", "--src-tls-verify=false", &source, &to]);
    registry(&[
        "import",
        &format!("docker-archive:{theirs}"),
        &at("back/theirs:v1"),
    ]);
    assert_eq!(id(&at("back/theirs:v1")), image.config_digest);
    let zipped = path("theirs.tar.gz");
    run(Command::new("sh")
        .arg("-c")
        .arg(format!("gzip -c {theirs} > {zipped}")));
    registry(&[
        "import",
        &zipped,
        &at("back/zipped:v1"),
        "--name",
        "docker.io/team/app:v1",
    ]);
    assert_eq!(id(&at("back/zipped:v1")), image.config_digest);
    let layout = path("layout.tar");
    skopeo(&[
        "copy",
        "--src-tls-verify=false",
        &source,
        &format!("oci-archive:{layout}:v1"),
    ]);
    assert_eq!(
        registry(&["import", &layout, &at("back/layout:v1")]),
        digest
    );
    all_can_be_pulled(&at("back"), folder.path());
    refused(&at("no:v1"), &theirs, folder.path());
}

fn all_can_be_pulled(below: &str, folder: &Path) {
    for name in ["ours", "theirs", "zipped", "layout"] {
        let source = format!("docker://{below}/{name}:v1");
        let to = format!("dir:{}", folder.join(name).display());
        skopeo(&["copy", "--src-tls-verify=false", &source, &to]);
    }
}

/// What is damaged or not there is said, and nothing is left half written.
fn refused(target: &str, archive: &str, folder: &Path) {
    let fails = |args: &[&str], expected: &str| {
        let output = towline().arg("registry").args(args).output().unwrap();
        let said = text(&output);
        assert!(
            !output.status.success() && said.contains(expected),
            "{args:?}: {said}"
        );
    };
    fails(
        &["import", archive, target, "--name", "other"],
        "holds no image",
    );
    let mut bytes = std::fs::read(archive).unwrap();
    // A byte of the first file, which is a layer.
    let at = bytes
        .windows(9)
        .position(|part| part == b"bin/guest")
        .unwrap();
    bytes[at] = b'B';
    let damaged = folder.join("damaged.tar");
    std::fs::write(&damaged, &bytes).unwrap();
    fails(
        &["import", damaged.to_str().unwrap(), target],
        "its diffID is",
    );
    let there = format!("docker-archive:{archive}");
    fails(
        &["export", &target.replace("no:v1", "team/app:v1"), &there],
        "is there already",
    );
    let new = format!("docker-archive:{}", folder.join("new.tar").display());
    fails(&["export", target, &new], "the registry has no repository");
    let names = std::fs::read_dir(folder).unwrap();
    assert!(names.into_iter().all(|name| {
        let name = name.unwrap().file_name();
        !name.to_string_lossy().contains(".half-") && name != "new.tar"
    }));
}

#[test]
fn podman_loads_and_saves() {
    if !need_root() || need_program("podman").is_none() || need_program("skopeo").is_none() {
        return;
    }
    let ours = OurRegistry::start();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", ours.address);
    let image = hello("podman");
    push(&image, ours.address, "team/app", "v1", None);
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        let (root, run_root) = (folder.path().join("root"), folder.path().join("run"));
        command
            .arg("--root")
            .arg(root)
            .arg("--runroot")
            .arg(run_root);
        run(command.args(["--storage-driver", "vfs"]).args(args))
    };
    let file = folder.path().join("ours.tar").display().to_string();
    let name = at("team/app:v1");
    registry(&["export", &name, &format!("docker-archive:{file}")]);
    podman(&["load", "--input", &file]);
    let seen = podman(&["image", "inspect", "--format", "{{.Id}}", &name]);
    assert_eq!(format!("sha256:{seen}"), image.config_digest);
    for format in ["docker-archive", "oci-archive"] {
        let file = folder.path().join(format).display().to_string();
        podman(&["save", "--format", format, "--output", &file, &name]);
        let back = at(&format!("back/{format}:v1"));
        registry(&["import", &file, &back]);
        assert_eq!(id(&back), image.config_digest, "{format}");
    }
    podman(&["rmi", "--all", "--force"]);
}
