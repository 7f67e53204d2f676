//! Known holes of other programs on the way from a registry to files, each attacked with a real registry and a real layer.
//!
//! The table of `docs/security.md` says what closes each, and names the tests of those that other files attack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use towline_cause::{Cause, Failure, Step};
use towline_images::Image;
use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Layer};
use towline_oci::{Digest, media_type};

use crate::support::{Node, Registry, noise, tree};

/// A folder of the host that an attacker knows, with a file in it.
struct Host {
    folder: TempDir,
    before: BTreeMap<Vec<u8>, String>,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("host")).unwrap();
        std::fs::write(folder.path().join("host/victim"), "the host's").unwrap();
        let before = tree(folder.path());
        Self { folder, before }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    fn text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    /// Mode, owner, content, links and times are those from before.
    fn assert_untouched(&self, what: &str) {
        assert_eq!(tree(self.folder.path()), self.before, "{what}");
    }
}

/// Pulls an image of these layers; whatever comes of it, nothing half-made is left.
async fn pull(layers: Vec<Layer>) -> (Result<Image, Failure>, Node) {
    let registry = Registry::start().await;
    let builder = layers.into_iter().fold(Builder::new(), Builder::layer);
    let reference = registry.push(&builder.build(), "evil").await;
    let node = Node::in_memory(|_| {});
    let pulled = node.try_pull(&reference).await;
    node.assert_clean();
    (pulled, node)
}

fn refused(pulled: Result<Image, Failure>, words: &str) {
    let failure = pulled.expect_err("it is refused");
    let chain = failure.chain();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::LayerExtractFailed, Step::Unpack),
        "{chain}"
    );
    assert!(chain.contains(words), "{words:?} is not in {chain:?}");
}

/// A name in the unpacked layer, which is the only one.
fn unpacked(node: &Node, image: &Image, name: &str) -> PathBuf {
    node.images.lower_dirs(image)[0].join(name)
}

/// containerd changed the mode of what a symlink points to.
#[tokio::test]
async fn cve_2021_32760_a_mode_does_not_go_through_a_symlink() {
    let host = Host::new();
    let link = || Layer::new().symlink("d", &host.text());
    // The directory takes the symlink's place and keeps its mode to itself.
    let (pulled, node) = pull(vec![link().directory("d", 0o777).mode(0o777)]).await;
    let image = pulled.unwrap();
    assert!(
        unpacked(&node, &image, "d")
            .symlink_metadata()
            .unwrap()
            .is_dir()
    );
    host.assert_untouched("a directory over a symlink");
    let (pulled, _) = pull(vec![link().file("d/victim", "mine").mode(0o4777)]).await;
    refused(pulled, "d/victim");
    host.assert_untouched("a file behind a symlink");
}

/// tar-rs and astral-tokio-tar set a directory's mode by its path (RUSTSEC-2026-0113 and GHSA-j4xf-2g29-59ph are the same).
#[tokio::test]
async fn cve_2026_33056_a_directory_entry_does_not_change_what_a_symlink_leads_to() {
    let host = Host::new();
    let up = format!("{}{}", "../".repeat(40), host.text());
    for target in [host.text(), up] {
        let layer = Layer::new()
            .directory("a", 0o755)
            .symlink("a/d", &target)
            .directory("a/d/", 0o777)
            .mode(0o000);
        let (pulled, node) = pull(vec![layer]).await;
        let image = pulled.unwrap();
        let made = unpacked(&node, &image, "a/d").symlink_metadata().unwrap();
        assert!(made.is_dir());
        host.assert_untouched(&target);
    }
}

/// ORAS followed hard links and symlinks out of its folder (GHSA-j6hm-v3x2-qv6j is the same).
#[tokio::test]
async fn cve_2026_50163_links_do_not_leave_the_layer() {
    let host = Host::new();
    let victim = host.path().join("victim").to_str().unwrap().to_owned();
    for target in [
        victim.clone(),
        format!("{}{victim}", "../".repeat(40)),
        "d/victim".to_owned(),
    ] {
        let layer = Layer::new()
            .symlink("d", &host.text())
            .hardlink("h", &target)
            .file("h", "evil");
        let (pulled, _) = pull(vec![layer]).await;
        refused(pulled, "victim");
        host.assert_untouched(&target);
    }
    // Over two layers: each is unpacked alone, the link of the one below leads nowhere.
    let below = Layer::new().symlink("d", &host.text());
    let (pulled, node) = pull(vec![below, Layer::new().file("d/victim", "mine")]).await;
    let image = pulled.unwrap();
    let mine = node.images.lower_dirs(&image)[0].join("d/victim");
    assert_eq!(std::fs::read(mine).unwrap(), b"mine");
    host.assert_untouched("two layers");
}

/// containerd 2.1.0 checked a path and then used it, while other layers were unpacked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2025_47290_what_is_swapped_during_the_unpacking_leads_nowhere() {
    let host = Host::new();
    let registry = Registry::start().await;
    // Every other layer makes the symlink that the others would have to be caught with.
    let layer = |n: u64| {
        let first = if n.is_multiple_of(2) {
            Layer::new().directory("d", 0o755)
        } else {
            Layer::new()
                .symlink("x", &host.text())
                .directory("d", 0o755)
        };
        (0..60).fold(first, |layer, file| {
            layer.file(&format!("d/f{file}"), noise(3_000, n * 100 + file))
        })
    };
    let builder = (0..8).fold(Builder::new(), |builder, n| builder.layer(layer(n)));
    let reference = registry.push(&builder.build(), "swapped").await;
    let (mut swaps, mut ended) = (0, 0);
    for _ in 0..3 {
        let node = Node::with(|options| options.max_concurrent_layers = 8);
        // Somebody swaps directory and symlink in every staging folder, all the time.
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, staging, target) = (stop.clone(), node.root().join("staging"), host.path());
        let swapper = std::thread::spawn(move || {
            let mut swapped = 0;
            while !stopped.load(Ordering::Relaxed) {
                swapped += swap(&staging, &target);
                std::thread::yield_now();
            }
            swapped
        });
        let pulled = node.try_pull(&reference).await;
        stop.store(true, Ordering::Relaxed);
        swaps += swapper.join().unwrap();
        // It may end, with the place told; it never goes wrong silently elsewhere.
        ended += u32::from(pulled.is_err());
        host.assert_untouched("swapping");
    }
    eprintln!("{swaps} swaps, {ended} pulls of 3 ended by them");
    assert!(swaps > 0);
}

/// Puts a symlink to the host in the place of each directory `d` below `folder`; gives how many.
fn swap(folder: &Path, host: &Path) -> usize {
    let mut swapped = 0;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        for base in [entry.path(), entry.path().join("fs")] {
            let (d, away) = (base.join("d"), base.join("away"));
            if d.symlink_metadata().is_ok_and(|meta| meta.is_dir())
                && std::fs::rename(&d, &away).is_ok()
            {
                swapped += usize::from(std::os::unix::fs::symlink(host, &d).is_ok());
                drop(std::fs::remove_file(&d));
                drop(std::fs::rename(&away, &d));
            }
        }
    }
    swapped
}

/// A tar header with a good checksum, and its content.
fn entry(flag: u8, name: &str, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while length.to_string().len() + body.len() != length {
        length += 1;
    }
    let record = format!("{length}{body}");
    entry(b'x', "pax", record.len() as u64, record.as_bytes())
}

/// Two readers take another size for one entry, and see another archive (RUSTSEC-2026-0112 is the same).
#[tokio::test]
async fn cve_2025_62518_an_entry_of_two_sizes_is_no_entry() {
    let inner = Layer::new().file("inner", "smuggled").archive();
    let whole = inner.len() as u64;
    for (what, stated, header) in [
        ("pax says all, the header nothing", whole, 0),
        ("pax says nothing, the header all", 0, whole),
        ("pax says more", whole + 512, whole),
        ("pax says less", 512, whole),
        ("pax says one byte less", whole - 1, whole),
    ] {
        let mut archive = pax("size", &stated.to_string());
        archive.extend(entry(b'0', "outer.tar", header, &inner));
        archive.extend([0; 1024]);
        let (pulled, _) = pull(vec![Layer::from_archive(archive)]).await;
        refused(pulled, "two readers would see two archives");
        eprintln!("{what}: refused");
    }
    // The same archive where both agree is one file, and what is in it stays in it.
    let mut archive = pax("size", &whole.to_string());
    archive.extend(entry(b'0', "outer.tar", whole, &inner));
    archive.extend([0; 1024]);
    let (pulled, node) = pull(vec![Layer::from_archive(archive)]).await;
    let image = pulled.unwrap();
    assert_eq!(
        std::fs::read(unpacked(&node, &image, "outer.tar")).unwrap(),
        inner
    );
    assert!(!unpacked(&node, &image, "inner").exists());
}

/// A record that does not fit is no reason to read on without it (astral-tokio-tar before 0.5.7).
#[tokio::test]
async fn rustsec_2026_0112_a_malformed_record_ends_the_layer() {
    for record in [
        "9999 size=0\n",
        "x size=0\n",
        "10 size=0",
        "10 size 0\n",
        " size=0\n",
    ] {
        let mut archive = entry(b'x', "pax", record.len() as u64, record.as_bytes());
        archive.extend(entry(b'0', "file", 4, b"text"));
        archive.extend([0; 1024]);
        let (pulled, _) = pull(vec![Layer::from_archive(archive)]).await;
        refused(pulled, "malformed");
    }
    // Nor is the next good header looked for behind a broken one.
    let mut archive = entry(b'0', "file", 4, b"text");
    archive[3] ^= 1;
    archive.extend(entry(b'0', "hidden", 4, b"text"));
    archive.extend([0; 1024]);
    let (pulled, _) = pull(vec![Layer::from_archive(archive)]).await;
    refused(pulled, "checksum");
}

/// containers/image made paths of what a manifest has for digests.
#[tokio::test]
async fn cve_2024_3727_what_is_no_digest_is_no_path() {
    let host = Host::new();
    let registry = Registry::start().await;
    let node = Node::in_memory(|_| {});
    let good = Digest::of(b"x").to_string();
    let hex = &good["sha256:".len()..];
    let traversal = format!("sha256:{}{}/x", "../".repeat(40), host.text());
    let bad = [
        traversal.as_str(),
        "sha256:../../x",
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha256:{}", &hex[1..]),
        &format!("sha256:{hex}0"),
        "sha256:",
        "",
        hex,
        &format!("md5:{}", &hex[..32]),
        &format!("sha1:{}", &hex[..40]),
        &format!("SHA256:{hex}"),
        &format!("sha256:{}\\u0000", &hex[1..]),
        &format!("sha256:{}", "\\u0000".repeat(64)),
    ];
    for digest in bad {
        for (what, config, layer) in [("config", digest, &*good), ("layer", &*good, digest)] {
            let body = format!(
                "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"{}\",\"digest\":\"{config}\",\"size\":1}},\
                 \"layers\":[{{\"mediaType\":\"{}\",\"digest\":\"{layer}\",\"size\":1}}]}}",
                media_type::OCI_CONFIG,
                media_type::OCI_LAYER
            );
            let answer = Fault::Answer {
                status: 200,
                headers: [(
                    "content-type".to_owned(),
                    media_type::OCI_MANIFEST.to_owned(),
                )]
                .into(),
                body,
            };
            registry.break_by(vec![Rule::on("*/manifests/*", answer)]);
            let failure = node.try_pull(&registry.reference("evil")).await;
            let failure = failure.expect_err("it is refused");
            assert_eq!(
                failure.step(),
                Step::Resolve,
                "{what} {digest:?}: {}",
                failure.chain()
            );
            assert!(
                registry.blobs_asked().is_empty(),
                "{what} {digest:?} was asked for"
            );
            node.assert_clean();
        }
    }
    host.assert_untouched("digests");
    // And those of the config.
    for digest in bad {
        let config = format!(
            "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{digest}\"]}}}}"
        );
        let built = Builder::new()
            .layer(Layer::new().file("f", ""))
            .raw_config(config.into_bytes())
            .build();
        registry.break_by(Vec::new());
        let reference = registry.push(&built, "config").await;
        let failure = node.try_pull(&reference).await.expect_err("it is refused");
        assert_eq!(
            failure.cause(),
            Cause::NotAnImage,
            "{digest:?}: {}",
            failure.chain()
        );
    }
    host.assert_untouched("diffIDs");
}

/// containerd let a label of the image name a program of the host: labels and annotations are facts for people.
#[tokio::test]
async fn cve_2026_53488_labels_of_an_image_control_nothing() {
    let registry = Registry::start().await;
    let controls = [
        ("containerd.io/restart.loguri", "binary:///bin/sh?-c"),
        ("io.cri-containerd.pinned", "pinned"),
        ("io.cri-containerd.image", "managed"),
        ("containerd.io/gc.root", "2099-01-01T00:00:00Z"),
        ("towline.dev/pinned", "true"),
        ("towline.dev/pulls", "{}"),
        ("towline.dev/retry-now", "1"),
    ];
    let plain = Builder::new().layer(Layer::new().file("f", "x"));
    let labelled = controls.iter().fold(plain, |builder, (name, value)| {
        builder.label(name, value).annotation(name, value)
    });
    let reference = registry.push(&labelled.build(), "labelled").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    assert!(!image.pinned);
    assert!(node.images.holds().is_empty());
    assert_eq!(
        image.config.config.labels.len(),
        controls.len(),
        "people see them"
    );
    assert!(node.images.remove(&image.id.to_string()).await.unwrap());
    assert!(node.images.list().is_empty());
}

/// cri-o and podman read what overlayfs is to obey out of layers; so did the redirect escape.
#[tokio::test]
async fn marks_of_overlayfs_do_not_come_from_an_image() {
    let names = [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
        "security.ima",
    ];
    let layer = names
        .iter()
        .fold(Layer::new().directory("d", 0o755), |layer, name| {
            layer.xattr(name, b"/host")
        });
    let (pulled, node) = pull(vec![layer]).await;
    let image = pulled.unwrap();
    for (name, described) in tree(&node.images.lower_dirs(&image)[0]) {
        let name = String::from_utf8_lossy(&name).into_owned();
        assert!(!described.contains("=/host"), "{name}: {described}");
    }
}

/// Every member of gzip and every frame of zstd is hashed and unpacked: what an unpacker stops before, a scanner may not (bootc#2408).
#[tokio::test]
async fn nothing_hides_behind_the_first_frame() {
    let archive = Layer::new()
        .file("first", noise(40_000, 1))
        .file("last", "x")
        .archive();
    let (front, back) = archive.split_at(20_000);
    let frames = [front, back]
        .map(|part| zstd::stream::encode_all(part, 1).unwrap())
        .concat();
    let layer = Layer::from_archive(frames).compression(Compression::None);
    let builder = Builder::new()
        .layer(layer)
        .diff_ids([Digest::of(&archive).to_string()]);
    let registry = Registry::start().await;
    let reference = registry.push(&builder.build(), "frames").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    assert!(unpacked(&node, &image, "last").exists());
    // What follows the archive's end counts for the diffID too: other bytes there are another layer.
    let mut longer = archive.to_vec();
    longer.extend(b"something behind the end");
    let layer = Layer::from_archive(longer).compression(Compression::None);
    let builder = Builder::new()
        .layer(layer)
        .diff_ids([Digest::of(&archive).to_string()]);
    let reference = registry.push(&builder.build(), "behind").await;
    let failure = Node::new()
        .try_pull(&reference)
        .await
        .expect_err("it is another layer");
    assert_eq!(
        failure.cause(),
        Cause::DigestMismatch,
        "{}",
        failure.chain()
    );
}
