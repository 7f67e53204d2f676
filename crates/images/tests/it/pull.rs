//! Pulls that go well.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use towline_images::{LayerPhase, LayerProgress, Phase, Progress, PullRequest};
use towline_keyring::Credential;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{self, Builder, Compression, Dialect, Index, Layer};
use towline_oci::{Digest, Platform};

use crate::support::{Node, Registry, noise, open, xattr};

fn three_layers() -> Builder {
    let base = Layer::new()
        .directory("etc", 0o755)
        .file("etc/config", "base")
        .directory("tmp", 0o1777)
        .file("bin/tool", noise(300_000, 7))
        .mode(0o4755)
        .owner(3, 4)
        .mtime(1_000_000)
        .hardlink("bin/same", "bin/tool")
        .symlink("bin/link", "tool")
        .fifo("run/pipe");
    let second = Layer::new()
        .compression(Compression::Zstd)
        .file("etc/second", "zstd");
    let third = Layer::new()
        .compression(Compression::None)
        .file("etc/third", "plain");
    Builder::new()
        .layer(base)
        .layer(second)
        .layer(third)
        .cmd(["/bin/tool"])
}

#[tokio::test]
async fn layers_of_every_compression_are_unpacked_as_written() {
    for dialect in [Dialect::Oci, Dialect::Docker] {
        let registry = Registry::start().await;
        let built = three_layers().dialect(dialect).build();
        let reference = registry.push(&built, "team/app").await;
        let node = Node::new();
        let pulled = node.pull(&reference).await;

        assert_eq!(pulled.id.to_string(), built.config_digest);
        assert_eq!(pulled.repo_tags, [reference.to_string()]);
        let by_digest = format!("{}@{}", reference.name(), built.digest());
        assert_eq!(pulled.repo_digests, std::slice::from_ref(&by_digest));
        assert_eq!(pulled.config.config.cmd, ["/bin/tool"]);
        let compressed: u64 = built.blobs.iter().map(|blob| blob.bytes.len() as u64).sum();
        assert_eq!(pulled.size, compressed + built.manifest.bytes.len() as u64);

        let dirs = node.images.lower_dirs(&pulled);
        assert_eq!(dirs.len(), 3);
        assert_eq!(std::fs::read(dirs[0].join("etc/third")).unwrap(), b"plain");
        assert_eq!(std::fs::read(dirs[1].join("etc/second")).unwrap(), b"zstd");
        let tool = std::fs::metadata(dirs[2].join("bin/tool")).unwrap();
        assert_eq!(tool.len(), 300_000);
        assert_eq!(tool.mtime(), 1_000_000);
        assert_eq!(tool.nlink(), 2);
        if rustix::process::geteuid().is_root() {
            assert_eq!(tool.mode() & 0o7777, 0o4755);
            assert_eq!((tool.uid(), tool.gid()), (3, 4));
        }
        assert_eq!(
            std::fs::metadata(dirs[2].join("tmp")).unwrap().mode() & 0o7777,
            0o1777
        );
        node.assert_clean();
        assert_eq!(node.spooled(), Vec::<u64>::new());

        let short = &built.config_digest[7..15];
        for name in [&by_digest, &built.config_digest, short, "team/app"] {
            let found = node.images.get(name);
            assert_eq!(found.is_some(), name != "team/app", "{name}");
        }
        assert_eq!(node.images.list().len(), 1);
    }
}

#[tokio::test]
async fn an_index_gives_the_nodes_platform_or_the_one_asked_for() {
    let registry = Registry::start().await;
    let of = |architecture: &str| {
        Builder::new()
            .layer(Layer::new().file("architecture", architecture))
            .platform(image::Platform::linux(architecture))
            .build()
    };
    let index = Index::new().image(of("amd64")).image(of("arm64")).build();
    let reference = registry.push(&index, "both").await;
    let node = Node::with(|options| options.platform = Platform::new("linux", "amd64"));
    let read = |image: &towline_images::Image| {
        std::fs::read_to_string(node.images.lower_dirs(image)[0].join("architecture")).unwrap()
    };
    let own = node.pull(&reference).await;
    assert_eq!(read(&own), "amd64");
    assert_eq!(
        own.repo_digests,
        [format!("{}@{}", reference.name(), index.digest())]
    );
    let mut request = PullRequest::new(reference.clone(), Credential::Anonymous);
    request.platform = Some(Platform::new("linux", "arm64"));
    let other = node.images.pull(request).await.unwrap();
    assert_eq!(read(&other), "arm64");
    // The names went to the image that was pulled last.
    assert_eq!(
        node.images.get(&other.repo_digests[0]).unwrap().id,
        other.id
    );
    assert_eq!(
        node.images.get(&reference.to_string()).unwrap().id,
        other.id
    );
    assert!(
        node.images
            .get(&own.id.to_string())
            .unwrap()
            .repo_tags
            .is_empty()
    );
    // Each can still be had again, and is found by where.
    for image in [&own, &other] {
        let image = node.images.get(&image.id.to_string()).unwrap();
        let source = format!("{}@{}", reference.name(), image.manifest);
        assert_eq!(image.sources, [source.as_str()]);
        assert_eq!(node.images.get(&source).unwrap().id, image.id);
    }
}

#[tokio::test]
async fn gzip_of_several_members_and_zstd_of_several_frames_are_read_to_the_end() {
    let registry = Registry::start().await;
    let archive = Layer::new()
        .file("first", noise(200_000, 1))
        .file("second", noise(200_000, 2))
        .archive();
    let gzip = archive.chunks(70_001).fold(Vec::new(), |out, part| {
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    });
    let mut zstd = Vec::new();
    for part in archive.chunks(70_001) {
        // A frame to skip before each: what a decoder passes over.
        zstd.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
        zstd.extend(zstd::encode_all(part, 1).unwrap());
    }
    for (name, bytes) in [("members", gzip), ("frames", zstd)] {
        let built = Builder::new()
            .layer(Layer::from_archive(bytes).compression(Compression::None))
            .diff_ids([Digest::of(&archive).to_string()])
            .build();
        let reference = registry.push(&built, name).await;
        let node = Node::new();
        let pulled = node.pull(&reference).await;
        let dir = &node.images.lower_dirs(&pulled)[0];
        assert_eq!(
            std::fs::read(dir.join("first")).unwrap(),
            noise(200_000, 1),
            "{name}"
        );
        assert_eq!(
            std::fs::read(dir.join("second")).unwrap(),
            noise(200_000, 2),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_layer_that_two_images_share_is_fetched_and_kept_once() {
    let registry = Registry::start().await;
    let shared = Layer::new().file("shared", noise(100_000, 3));
    let one = Builder::new()
        .layer(shared.clone())
        .layer(Layer::new().file("one", "1"));
    let two = Builder::new()
        .layer(shared.clone())
        .layer(Layer::new().file("two", "2"));
    let (one, two) = (one.build(), two.build());
    let (first, second) = (
        registry.push(&one, "one").await,
        registry.push(&two, "two").await,
    );
    let node = Node::new();
    let (a, b) = tokio::join!(node.pull(&first), node.pull(&second));
    assert_eq!(node.images.lower_dirs(&a)[1], node.images.lower_dirs(&b)[1]);
    let digest = &one.blobs[0].digest;
    let asked = registry.blobs_asked();
    let fetched = asked
        .iter()
        .filter(|(path, _)| path.ends_with(digest.as_str()));
    assert_eq!(fetched.count(), 1);

    assert!(node.images.remove(&first.to_string()).await.unwrap());
    assert!(
        !node.images.remove(&first.to_string()).await.unwrap(),
        "missing is no error"
    );
    assert!(!node.images.remove("no such name ever").await.unwrap());
    assert!(node.images.lower_dirs(&b)[1].join("shared").exists());
    node.images.remove(&b.id.to_string()).await.unwrap();
    assert_eq!(node.images.usage().await.unwrap().bytes(), 0);
    node.assert_clean();
}

#[tokio::test]
async fn a_held_image_keeps_its_layers_over_removal_and_restart() {
    let registry = Registry::start().await;
    let built = Builder::new().layer(Layer::new().file("kept", "x")).build();
    let reference = registry.push(&built, "held").await;
    let node = Node::with(|options| options.store.grace = std::time::Duration::ZERO);
    let pulled = node.pull(&reference).await;
    let dir = node.images.lower_dirs(&pulled)[0].clone();
    node.images.hold("container-1", &pulled).await.unwrap();
    node.images.remove(&reference.to_string()).await.unwrap();
    node.images.gc().await.unwrap();
    assert!(dir.join("kept").exists());

    let Node { images, dir: home } = node;
    drop(images);
    let images = open(&home.path().join("store"), |options| {
        options.store.grace = std::time::Duration::ZERO;
    });
    assert_eq!(
        images.holds(),
        [("container-1".to_owned(), pulled.id.clone())]
    );
    images.gc().await.unwrap();
    assert!(dir.join("kept").exists());
    images.release("container-1").await.unwrap();
    images.release("container-1").await.unwrap();
    let collected = images.gc().await.unwrap();
    assert_eq!(collected.layers, 1);
    assert!(!dir.exists());
}

#[tokio::test]
async fn names_are_given_pinned_and_moved() {
    let registry = Registry::start().await;
    let build = |text: &str| Builder::new().layer(Layer::new().file("f", text)).build();
    let first = registry.push(&build("1"), "a").await;
    let second = registry.push(&build("2"), "b").await;
    let node = Node::new();
    let (a, b) = (node.pull(&first).await, node.pull(&second).await);
    let name = registry.reference("c");
    assert_eq!(
        node.images
            .tag(&first.to_string(), &name)
            .await
            .unwrap()
            .repo_tags
            .len(),
        2
    );
    node.images.tag(&b.id.to_string(), &name).await.unwrap();
    assert_eq!(node.images.get(&name.to_string()).unwrap().id, b.id);
    assert_eq!(
        node.images.get(a.id.hex()).unwrap().repo_tags,
        [first.to_string()]
    );
    assert!(
        node.images
            .pin(&first.to_string(), true)
            .await
            .unwrap()
            .pinned
    );
    assert!(node.images.tag("nothing", &name).await.is_err());
}

#[tokio::test]
async fn progress_ends_with_every_layer_done() {
    let registry = Registry::start().await;
    let built = three_layers().build();
    let reference = registry.push(&built, "watched").await;
    let node = Node::new();
    let (sender, receiver) = tokio::sync::watch::channel(Progress::default());
    let mut request = PullRequest::new(reference, Credential::Anonymous);
    request.progress = Some(sender);
    node.images.pull(request).await.unwrap();
    let last = receiver.borrow().clone();
    assert_eq!(last.phase, Phase::Done);
    assert_eq!(last.layers.len(), 3);
    assert!(
        last.layers
            .iter()
            .all(|layer| layer.phase == LayerPhase::Done)
    );
    let (bytes, total) = last.bytes();
    assert_eq!(bytes, total);
}

#[tokio::test]
async fn extended_attributes_are_an_images_only_where_they_are_harmless() {
    if !towline_sys::testing::need_root() {
        return;
    }
    let registry = Registry::start().await;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .file("ping", "x")
        .owner(1, 1)
        .xattr("security.capability", &capability)
        .xattr("user.note", b"kept")
        .xattr("user.overlay.opaque", b"y")
        .xattr("trusted.overlay.redirect", b"/etc")
        .directory("d", 0o755)
        .xattr("trusted.overlay.opaque", b"y")
        .symlink("l", "ping")
        .xattr("trusted.overlay.redirect", b"/etc");
    let reference = registry
        .push(&Builder::new().layer(layer).build(), "x")
        .await;
    let node = Node::new();
    let dir = node.images.lower_dirs(&node.pull(&reference).await)[0].clone();
    let ping = dir.join("ping");
    assert_eq!(xattr(&ping, "security.capability").unwrap(), capability);
    assert_eq!(xattr(&ping, "user.note").unwrap(), b"kept");
    assert_eq!(xattr(&ping, "user.overlay.opaque"), None);
    assert_eq!(xattr(&ping, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&dir.join("d"), "trusted.overlay.opaque"), None);
    assert_eq!(xattr(&dir.join("l"), "trusted.overlay.redirect"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_small_layers_come_side_by_side_than_large_ones() {
    let registry = Registry::start().await;
    let mut builder = Builder::new();
    for number in 1..=16 {
        let file = noise(20_000, number);
        let layer = Layer::new().file(&format!("f{number}"), file);
        builder = builder.layer(layer.compression(Compression::None));
    }
    let reference = registry.push(&builder.build(), "small").await;
    let slow = Fault::Trickle {
        bytes: 2 << 10,
        every_millis: 50,
    };
    registry.break_by(vec![Rule::on("*/blobs/*", slow).method("GET")]);
    let node = Node::new();
    let (sender, mut progress) = tokio::sync::watch::channel(Progress::default());
    let mut request = PullRequest::new(reference, Credential::Anonymous);
    request.progress = Some(sender);
    let most = async {
        let mut most = 0;
        while progress.changed().await.is_ok() {
            let layers = &progress.borrow_and_update().layers;
            let coming = |layer: &&LayerProgress| layer.phase == LayerPhase::Downloading;
            most = most.max(layers.iter().filter(coming).count());
        }
        most
    };
    let (pulled, most) = tokio::join!(node.images.pull(request), most);
    // Three large ones would.
    assert!((4..=12).contains(&most), "{most}");
    assert_eq!(node.images.lower_dirs(&pulled.unwrap()).len(), 16);
    assert_eq!(node.spooled(), Vec::<u64>::new());
    node.assert_clean();
}
