//! The same archive unpacked by us and by GNU tar gives the same tree.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use towline_lab::image::{Builder, Layer};
use towline_sys::testing::{need_program, need_root};

use crate::support::{Node, Registry, noise, tree};

/// A tree with everything a layer can hold that both tools can make.
fn fill(root: &Path) {
    let long = "a-name-of-forty-characters-is-long-enough";
    let deep = root.join(long).join(long).join(long).join(long);
    std::fs::create_dir_all(&deep).unwrap();
    for (path, bytes) in [
        (root.join("empty"), vec![]),
        (root.join("small"), b"text\n".to_vec()),
        (root.join("block"), noise(512, 1)),
        (root.join("large"), noise(1_000_001, 2)),
        (deep.join("file-below-a-long-path"), b"deep".to_vec()),
        (
            root.join("n\u{e4}me with spaces\nand lines"),
            b"odd".to_vec(),
        ),
        (root.join("UPPER"), b"u".to_vec()),
        (root.join("shut/inside"), b"s".to_vec()),
    ] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for (name, mode) in [
        ("small", 0o4755),
        ("large", 0o600),
        ("UPPER", 0o2711),
        ("shut", 0o500),
    ] {
        std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::hard_link(root.join("large"), root.join("large-too")).unwrap();
    std::fs::hard_link(deep.join("file-below-a-long-path"), root.join("short")).unwrap();
    symlink("small", root.join("link")).unwrap();
    symlink(format!("/{}", "target/".repeat(30)), root.join("long-link")).unwrap();
    std::fs::hard_link(root.join("link"), root.join("link-too")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), 0o640.into()).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("null"),
        kind,
        0o666.into(),
        device,
    )
    .unwrap();
    let kind = rustix::fs::FileType::BlockDevice;
    let device = rustix::fs::makedev(7, 200);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("loop"),
        kind,
        0o660.into(),
        device,
    )
    .unwrap();
    std::os::unix::fs::chown(root.join("UPPER"), Some(70_000), Some(3_000_000)).unwrap();
    std::os::unix::fs::lchown(root.join("long-link"), Some(12), Some(34)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("small"), "user.note", b"with\0zero", flags).unwrap();
    rustix::fs::setxattr(root.join("shut"), "user.dir", b"", flags).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(
        root.join("large"),
        "security.capability",
        &capability,
        flags,
    )
    .unwrap();
}

fn run(program: &Path, arguments: &[&str], dir: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

#[tokio::test]
async fn trees_are_those_of_gnu_tar() {
    let Some(gnu_tar) = need_program("tar") else {
        return;
    };
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    fill(&source);
    let registry = Registry::start().await;
    for format in ["gnu", "posix", "ustar", "oldgnu"] {
        let archive = home.path().join("archive.tar");
        let with = format!("--format={format}");
        let mut arguments = vec!["-cf", archive.to_str().unwrap(), with.as_str()];
        match format {
            // Extended attributes exist in pax alone.
            "posix" => arguments.extend(["--xattrs", "--xattrs-include=*"]),
            // Too long for ustar's fields.
            "ustar" => arguments.extend([
                "--exclude=long-link",
                "--exclude=a-name*",
                "--exclude=short",
                "--exclude=UPPER",
            ]),
            _ => {}
        }
        arguments.push(".");
        run(&gnu_tar, &arguments, &source);
        let theirs = home.path().join(format);
        std::fs::create_dir(&theirs).unwrap();
        let unpack = [
            "-xpf",
            archive.to_str().unwrap(),
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
        ];
        run(&gnu_tar, &unpack, &theirs);

        let layer = Layer::from_archive(std::fs::read(&archive).unwrap());
        let reference = registry
            .push(&Builder::new().layer(layer).build(), format)
            .await;
        let node = Node::new();
        let image = node.pull(&reference).await;
        let ours = tree(&node.images.lower_dirs(&image)[0]);
        let theirs = tree(&theirs);
        assert!(ours.len() > 10, "{}", ours.len());
        for (name, described) in &theirs {
            let name_shown = String::from_utf8_lossy(name).into_owned();
            assert_eq!(ours.get(name), Some(described), "{format}: {name_shown}");
        }
        assert_eq!(ours.len(), theirs.len(), "{format}");
    }
}
