//! Layers as overlayfs shows them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use towline_lab::image::{Builder, Image, Layer};
use towline_sys::mount::{Overlay, overlay};
use towline_sys::testing::{in_mount_namespace, need_root};

use crate::support::{Node, Registry, xattr};

/// Pulls an image and looks at it through an overlay mount, in a mount namespace of its own.
fn mounted(image: &Image, look: impl FnOnce(&Path) + Send) {
    in_mount_namespace(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let registry = Registry::start().await;
            let reference = registry.push(image, "mounted").await;
            let node = Node::new();
            let pulled = node.pull(&reference).await;
            let lower = node.images.lower_dirs(&pulled);
            let target = node.dir.path().join("merged");
            std::fs::create_dir(&target).unwrap();
            let spec = Overlay {
                lower: &lower,
                upper: None,
            };
            overlay(&spec, &target).unwrap();
            look(&target);
            towline_sys::mount::unmount(&target).unwrap();
        });
    });
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn base() -> Layer {
    Layer::new()
        .file("gone", "1")
        .file("kept", "1")
        .file("dir/old", "1")
        .file("dir/sub/old", "1")
        .file("whole/old", "1")
        .file("swap/old", "1")
        .file("late/old", "1")
}

#[test]
fn whiteouts_hide_what_lies_below_and_only_that() {
    if !need_root() {
        return;
    }
    let above = Layer::new()
        .whiteout("gone")
        .whiteout("dir/sub")
        // The directory is removed as a whole.
        .whiteout("whole")
        // Opaque before and after what the layer itself has in it.
        .directory("swap", 0o750)
        .opaque("swap")
        .file("swap/new", "2")
        .file("late/new", "2")
        .opaque("late")
        // A whiteout and an entry of the same name in one layer: the entry is there, what was below it is not.
        .file("both/file", "2")
        .whiteout("both");
    let lower = base().file("both/old", "1");
    let image = Builder::new().layer(lower).layer(above).build();
    mounted(&image, |root| {
        assert_eq!(names(root), ["both", "dir", "kept", "late", "swap"]);
        assert_eq!(names(&root.join("dir")), ["old"]);
        assert_eq!(names(&root.join("swap")), ["new"]);
        assert_eq!(names(&root.join("late")), ["new"]);
        assert_eq!(names(&root.join("both")), ["file"]);
        assert_eq!(
            std::fs::metadata(root.join("swap")).unwrap().mode() & 0o7777,
            0o750
        );
    });
}

#[test]
fn a_whiteout_before_its_directory_hides_what_lies_below() {
    if !need_root() {
        return;
    }
    let above = Layer::new()
        .whiteout("dir")
        .directory("dir", 0o711)
        .file("dir/new", "2")
        .whiteout("whole")
        // Its directory is not even named.
        .file("whole/new", "2")
        .whiteout("gone")
        .file("gone", "2");
    let image = Builder::new().layer(base()).layer(above).build();
    mounted(&image, |root| {
        assert_eq!(names(&root.join("dir")), ["new"]);
        assert_eq!(names(&root.join("whole")), ["new"]);
        assert_eq!(std::fs::read(root.join("gone")).unwrap(), b"2");
        assert_eq!(
            std::fs::metadata(root.join("dir")).unwrap().mode() & 0o7777,
            0o711
        );
    });
}

#[test]
fn an_opaque_root_hides_every_layer_below() {
    if !need_root() {
        return;
    }
    let middle = Layer::new().file(".wh..wh..opq", "").file("new", "2");
    let top = Layer::new().file("top", "3");
    let image = Builder::new()
        .layer(base())
        .layer(middle)
        .layer(top)
        .build();
    mounted(&image, |root| assert_eq!(names(root), ["new", "top"]));
}

#[test]
fn a_layer_that_an_image_has_twice_is_mounted_once() {
    if !need_root() {
        return;
    }
    let again = || Layer::new().file("again", "1").file("dir/again", "1");
    let between = Layer::new().whiteout("again").file("dir/between", "2");
    let image = Builder::new()
        .layer(again())
        .layer(between)
        .layer(again())
        .layer(again())
        .build();
    mounted(&image, |root| {
        assert_eq!(names(root), ["again", "dir"]);
        assert_eq!(names(&root.join("dir")), ["again", "between"]);
    });
}

#[tokio::test]
async fn marks_have_overlayfs_form() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let layer = Layer::new()
        .whiteout("gone")
        .opaque("dir")
        .file(".wh..wh.plnk", "aufs' own note")
        .device("null", 1, 3);
    let reference = registry
        .push(&Builder::new().layer(layer).build(), "marks")
        .await;
    let node = Node::new();
    let dir = node.images.lower_dirs(&node.pull(&reference).await)[0].clone();
    let gone = std::fs::symlink_metadata(dir.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    assert_eq!(
        xattr(&dir.join("dir"), "trusted.overlay.opaque").unwrap(),
        b"y"
    );
    assert_eq!(names(&dir), ["dir", "gone", "null"]);
    let null = std::fs::symlink_metadata(dir.join("null")).unwrap();
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
}
