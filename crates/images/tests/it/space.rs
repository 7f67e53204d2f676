//! A disk that is full, and one that became read-only.

use std::path::Path;

use rustix::mount::MountFlags;
use towline_cause::{Cause, Step};
use towline_lab::image::{Builder, Compression, Layer};
use towline_sys::mount::tmpfs;
use towline_sys::testing::{in_mount_namespace, need_root};

use crate::support::{Node, Registry, noise};

/// Runs a test on a node whose store has a tmpfs of `size` bytes of its own.
fn on_a_small_disk<F: Future<Output = ()>>(
    size: u64,
    body: impl FnOnce(Registry, Node) -> F + Send,
) {
    in_mount_namespace(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let registry = Registry::start().await;
            let dir = tempfile::tempdir().unwrap();
            let disk = dir.path().join("store");
            std::fs::create_dir(&disk).unwrap();
            tmpfs(&disk, size).unwrap();
            let images = crate::support::open(&disk, |_| {});
            body(registry, Node { images, dir }).await;
            towline_sys::mount::unmount(&disk).unwrap();
        });
    });
}

fn remount(disk: &Path, flags: MountFlags, options: &std::ffi::CStr) {
    rustix::mount::mount_remount(disk, flags, options).unwrap();
}

fn image(compression: Compression) -> Builder {
    let files = (0..8).fold(Layer::new(), |layer, n| {
        layer.file(&format!("f{n}"), noise(1 << 20, n + 1))
    });
    Builder::new().layer(files.compression(compression))
}

#[test]
fn a_full_disk_is_named_and_a_freed_one_goes_on() {
    if !need_root() {
        return;
    }
    on_a_small_disk(12 << 20, |registry, node| async move {
        let built = image(Compression::Gzip).build();
        let reference = registry.push(&built, "large").await;
        let failure = node
            .try_pull(&reference)
            .await
            .expect_err("it does not fit");
        let chain = failure.chain();
        assert_eq!(failure.cause(), Cause::NoSpaceLeft, "{chain}");
        assert!(
            matches!(failure.step(), Step::Fetch | Step::Unpack),
            "{chain}"
        );
        assert!(chain.contains(node.root().to_str().unwrap()), "{chain}");
        node.assert_clean();
        assert!(node.images.list().is_empty());
        let kept: u64 = node.spooled().iter().sum();
        assert!(kept > 1 << 20, "{kept}");

        remount(&node.root(), MountFlags::empty(), c"size=64m");
        node.pull(&reference).await;
        let layer = &built.blobs[0];
        let asked = registry.blobs_asked().into_iter();
        let asked: Vec<_> = asked
            .filter(|(path, _)| path.ends_with(layer.digest.as_str()))
            .map(|(_, range)| range)
            .collect();
        // What had come is not asked for again; all of it may have.
        let rest = (kept < layer.bytes.len() as u64)
            .then(|| Some(format!("bytes={kept}-{}", layer.bytes.len() - 1)));
        let want: Vec<_> = std::iter::once(None).chain(rest).collect();
        assert_eq!(asked, want);
    });
}

fn one_file(seed: u64, length: usize) -> towline_lab::image::Image {
    let layer = Layer::new().file("file", noise(length, seed));
    Builder::new()
        .layer(layer.compression(Compression::Gzip))
        .build()
}

#[test]
fn what_a_cut_pull_left_is_in_nobodys_way() {
    if !need_root() {
        return;
    }
    on_a_small_disk(12 << 20, |registry, node| async move {
        let large = registry
            .push(&image(Compression::Gzip).build(), "large")
            .await;
        let failure = node.try_pull(&large).await.expect_err("it does not fit");
        assert_eq!(failure.cause(), Cause::NoSpaceLeft, "{}", failure.chain());
        let kept: u64 = node.spooled().iter().sum();
        assert!(kept > 4 << 20, "{kept}");
        // Fits only where that is not.
        let small = registry.push(&one_file(99, 4 << 20), "small").await;
        node.pull(&small).await;
        assert_eq!(node.spooled(), [0; 0], "what the large one left is gone");
        node.assert_clean();

        // The pull's own spool is not what it frees.
        let failure = node.try_pull(&large).await.expect_err("it does not fit");
        assert_eq!(failure.cause(), Cause::NoSpaceLeft, "{}", failure.chain());
        assert!(node.spooled().iter().sum::<u64>() > 1 << 20);
    });
}

#[test]
fn prune_empties_a_disk_that_spools_have_filled() {
    if !need_root() {
        return;
    }
    on_a_small_disk(12 << 20, |registry, node| async move {
        let large = registry
            .push(&image(Compression::Gzip).build(), "large")
            .await;
        node.try_pull(&large).await.expect_err("it does not fit");
        let kept: u64 = node.spooled().iter().sum();
        // To the last byte.
        let filling = node.root().join("filling");
        let mut file = std::fs::File::create(&filling).unwrap();
        while std::io::Write::write(&mut file, &[1; 512]).is_ok() {}
        let disk = node.root();
        let Node { images, dir } = node;
        drop(images);
        let images = crate::support::open(&disk, |_| {});
        let node = Node { images, dir };
        let left: u64 = node.spooled().iter().sum();
        let pruned = node.images.prune().await.unwrap();
        assert_eq!(node.spooled(), [0; 0]);
        assert_eq!(pruned.bytes, left);
        assert_eq!(pruned.downloads, u64::from(left > 0));
        let free = towline_sys::fs::free_space(&disk).unwrap();
        assert!(free >= kept, "{free} {kept}");
    });
}

#[test]
fn a_nearly_full_disk_is_relieved_of_what_nobody_came_for() {
    if !need_root() {
        return;
    }
    on_a_small_disk(12 << 20, |registry, node| async move {
        let large = registry
            .push(&image(Compression::Gzip).build(), "large")
            .await;
        node.try_pull(&large).await.expect_err("it does not fit");
        let kept: u64 = node.spooled().iter().sum();
        let none = std::time::Duration::ZERO;
        assert_eq!(node.images.relieve(none).await.unwrap(), 0, "there is room");
        let room = towline_sys::fs::free_space(node.root()).unwrap();
        let filling = vec![1; usize::try_from(room).unwrap() - (1 << 20)];
        std::fs::write(node.root().join("filling"), filling).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(node.images.relieve(hour).await.unwrap(), 0, "it is fresh");
        assert_eq!(node.images.relieve(none).await.unwrap(), kept);
    });
}

#[test]
fn a_read_only_disk_is_named() {
    if !need_root() {
        return;
    }
    on_a_small_disk(64 << 20, |registry, node| async move {
        let built = image(Compression::Zstd).build();
        let reference = registry.push(&built, "read-only").await;
        // The database has its file open for writing, which forbids the remount of the file system; of the mount it does not.
        let disk = node.root();
        rustix::mount::mount_bind(&disk, &disk).unwrap();
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        remount(&disk, flags, c"");
        let failure = node
            .try_pull(&reference)
            .await
            .expect_err("nothing can be written");
        assert_eq!(
            failure.cause(),
            Cause::FilesystemReadOnly,
            "{}",
            failure.chain()
        );
        towline_sys::mount::unmount(&disk).unwrap();
        node.pull(&reference).await;
    });
}
