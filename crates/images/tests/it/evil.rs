//! Layers made to reach what is not theirs: the host's files stay as they are, whatever becomes of the pull.

use std::path::Path;

use towline_cause::Cause;
use towline_lab::image::{Builder, Layer};

use crate::support::{Node, Registry, tree};

/// What a layer's unpacking must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It ends with this cause.
    Fails(Cause),
    /// It is unpacked, inside.
    Unpacks,
}

const REFUSED: Want = Want::Fails(Cause::LayerExtractFailed);

/// The layers, where `host` is a directory of the host that the attacker knows.
fn corpus(host: &Path) -> Vec<(&'static str, Layer, Want)> {
    let host = host.to_str().unwrap();
    let dots = format!("{}{host}/x", "../".repeat(40));
    let mut all = vec![
        ("parent", Layer::new().file("../x", "evil"), REFUSED),
        (
            "parent inside",
            Layer::new().file("a/../../x", "evil"),
            REFUSED,
        ),
        ("many parents", Layer::new().file(&dots, "evil"), REFUSED),
        ("only parent", Layer::new().directory("..", 0o777), REFUSED),
        (
            "absolute",
            Layer::new().file(&format!("{host}/x"), "evil"),
            Want::Unpacks,
        ),
        ("no name", Layer::new().file("", "evil"), REFUSED),
        ("root as a file", Layer::new().file("./", "evil"), REFUSED),
        (
            "root as a symlink",
            Layer::new().symlink(".", host),
            REFUSED,
        ),
        (
            "root's mode",
            Layer::new().directory("./", 0o700),
            Want::Unpacks,
        ),
        ("parent whiteout", Layer::new().file(".wh...", ""), REFUSED),
        ("self whiteout", Layer::new().file(".wh..", ""), REFUSED),
        ("empty whiteout", Layer::new().file("d/.wh.", ""), REFUSED),
        (
            "root opaque",
            Layer::new().file(".wh..wh..opq", ""),
            Want::Unpacks,
        ),
        ("device 0:0", Layer::new().device("d", 0, 0), REFUSED),
        ("pax parent", with_pax("path", b"../../x"), REFUSED),
        (
            "pax absolute",
            with_pax("path", format!("{host}/x").as_bytes()),
            Want::Unpacks,
        ),
        ("pax NUL", with_pax("path", b"a\0b"), REFUSED),
        ("pax size up", with_pax("size", b"600"), REFUSED),
        ("pax size down", with_pax("size", b"0"), REFUSED),
        ("pax size negative", with_pax("size", b"-1"), REFUSED),
        (
            "pax sparse",
            with_pax("GNU.sparse.realsize", b"9999999999999"),
            REFUSED,
        ),
        ("pax owner", with_pax("uid", b"4294967296"), REFUSED),
        ("pax last owner", with_pax("uid", b"4294967295"), REFUSED),
    ];
    all.extend(through_links(host));
    all.extend(through_hard_links(host));
    all.extend(broken());
    all
}

/// Writes through symlinks.
fn through_links(host: &str) -> Vec<(&'static str, Layer, Want)> {
    let to_host = || Layer::new().symlink("d", host);
    let up = format!("{}{host}", "../".repeat(40));
    let chain = (0..60).fold(Layer::new(), |layer, n| {
        layer.symlink(&format!("l{n}"), &format!("l{}", n + 1))
    });
    vec![
        ("file through", to_host().file("d/x", "evil"), REFUSED),
        (
            "file through dots",
            Layer::new().symlink("d", &up).file("d/x", "evil"),
            REFUSED,
        ),
        (
            "victim through",
            to_host().file("d/victim", "evil"),
            REFUSED,
        ),
        (
            "directory through",
            to_host().directory("d/x", 0o777),
            REFUSED,
        ),
        (
            "whiteout through",
            to_host().file("d/.wh.victim", ""),
            REFUSED,
        ),
        (
            "opaque through",
            to_host().file("d/.wh..wh..opq", ""),
            REFUSED,
        ),
        ("symlink through", to_host().symlink("d/x", "y"), REFUSED),
        ("fifo through", to_host().fifo("d/x"), REFUSED),
        ("device through", to_host().device("d/x", 1, 3), REFUSED),
        (
            "link through",
            Layer::new()
                .file("f", "")
                .symlink("d", host)
                .hardlink("d/x", "f"),
            REFUSED,
        ),
        // The directory takes the symlink's place; the host's directory keeps its mode.
        (
            "directory over",
            to_host().directory("d", 0o777).file("d/x", "mine"),
            Want::Unpacks,
        ),
        (
            "file over",
            Layer::new()
                .symlink("f", &format!("{host}/victim"))
                .file("f", "mine"),
            Want::Unpacks,
        ),
        ("chain", chain.file("l0/x", "evil"), REFUSED),
        (
            "loop",
            Layer::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", "evil"),
            REFUSED,
        ),
    ]
}

/// Hard links to what is not theirs, and links that stay inside.
fn through_hard_links(host: &str) -> Vec<(&'static str, Layer, Want)> {
    let to_host = || Layer::new().symlink("d", host);
    let up = format!("{}{host}", "../".repeat(40));
    vec![
        (
            "hard link up",
            Layer::new().hardlink("h", &format!("{up}/victim")),
            REFUSED,
        ),
        (
            "hard link absolute",
            Layer::new().hardlink("h", &format!("{host}/victim")),
            REFUSED,
        ),
        (
            "hard link through",
            to_host().hardlink("h", "d/victim").file("h", "evil"),
            REFUSED,
        ),
        // The link is to the symlink itself, and the file takes its place.
        (
            "hard link to symlink",
            Layer::new()
                .symlink("s", &format!("{host}/victim"))
                .hardlink("h", "s")
                .file("h", "mine"),
            Want::Unpacks,
        ),
        (
            "hard link to directory",
            Layer::new().directory("d", 0o755).hardlink("h", "d"),
            REFUSED,
        ),
        (
            "hard link to whiteout",
            Layer::new().whiteout("gone").hardlink("h", "gone"),
            REFUSED,
        ),
        (
            "hard link to itself",
            Layer::new().file("h", "x").hardlink("h", "h"),
            Want::Unpacks,
        ),
        (
            "proc",
            Layer::new()
                .symlink("d", "/proc/self/root")
                .file("d/tmp/x", "evil"),
            REFUSED,
        ),
        // Inside the layer a symlink leads where it would lead in the container.
        (
            "inside",
            Layer::new()
                .directory("usr/lib", 0o755)
                .symlink("lib", "/usr/lib")
                .file("lib/x", "mine"),
            Want::Unpacks,
        ),
        (
            "inside, up",
            Layer::new()
                .directory("a", 0o755)
                .symlink("a/s", "../../../../a")
                .file("a/s/x", "mine"),
            Want::Unpacks,
        ),
    ]
}

/// Archives that two readers could read differently, or not at all.
fn broken() -> Vec<(&'static str, Layer, Want)> {
    let good = Layer::new().file("a", "12345678").file("b", "x").archive();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        Layer::from_archive(bytes)
    };
    let with_sum = |bytes: &mut Vec<u8>| {
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    };
    let size = |field: &'static [u8; 12]| {
        changed(&move |bytes| {
            bytes[124..136].copy_from_slice(field);
            with_sum(bytes);
        })
    };
    let flag = |flag: u8| {
        changed(&move |bytes| {
            bytes[156] = flag;
            with_sum(bytes);
        })
    };
    vec![
        ("checksum", changed(&|bytes| bytes[0] ^= 1), REFUSED),
        (
            "size of 8 EiB",
            size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            REFUSED,
        ),
        ("size negative", size(&[0xff; 12]), REFUSED),
        ("size of words", size(b"many bytes \0"), REFUSED),
        (
            "lone zeros",
            changed(&|bytes| bytes[1024..1536].fill(0)),
            REFUSED,
        ),
        ("sparse without a map", flag(b'S'), REFUSED),
        (
            "unknown type",
            flag(b'Z'),
            Want::Fails(Cause::UnsupportedLayer),
        ),
        ("volume", flag(b'V'), Want::Fails(Cause::UnsupportedLayer)),
        ("directory with content", flag(b'5'), REFUSED),
        ("hard link with content", flag(b'1'), REFUSED),
        ("an entry inside an entry", nested(), Want::Unpacks),
        (
            "a header at the end",
            Layer::from_archive(header_only()),
            REFUSED,
        ),
        ("two long names", two_names(), REFUSED),
        (
            "global path",
            global(),
            Want::Fails(Cause::UnsupportedLayer),
        ),
    ]
}

/// An archive whose first entry has a pax record.
fn with_pax(key: &str, value: &[u8]) -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([(key, value)]).unwrap();
    append(&mut archive, b'0', "plain", &[b'z'; 100]);
    Layer::from_archive(archive.into_inner().unwrap())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, flag: u8, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

/// A file whose content is an archive: what a reader that loses count would unpack.
fn nested() -> Layer {
    let inner = Layer::new().file("../inner", "evil").archive();
    Layer::new().file("outer.tar", inner)
}

fn header_only() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, b'L', "././@LongLink", b"name\0");
    archive.into_inner().unwrap()
}

fn two_names() -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, b'L', "././@LongLink", b"one\0");
    archive
        .append_pax_extensions([("path", &b"two"[..])])
        .unwrap();
    append(&mut archive, b'0', "three", b"");
    Layer::from_archive(archive.into_inner().unwrap())
}

fn global() -> Layer {
    let mut archive = tar::Builder::new(Vec::new());
    append(
        &mut archive,
        b'g',
        "pax_global_header",
        b"16 path=../evil\n",
    );
    append(&mut archive, b'0', "file", b"");
    Layer::from_archive(archive.into_inner().unwrap())
}

#[tokio::test]
async fn no_layer_reaches_the_host() {
    let registry = Registry::start().await;
    let outside = tempfile::tempdir().unwrap();
    let host = outside.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("victim"), "the host's").unwrap();
    let node = Node::in_memory(|_| {});
    let store = node.root();
    let before = tree(outside.path());
    let corpus = corpus(&host);
    assert!(corpus.len() > 50);
    for (number, (what, layer, want)) in corpus.into_iter().enumerate() {
        if what.contains("device") && !rustix::process::geteuid().is_root() {
            continue;
        }
        let built = Builder::new().layer(layer).build();
        let reference = registry.push(&built, &format!("evil/{number}")).await;
        let result = node.try_pull(&reference).await;
        let got = match &result {
            Ok(_) => Want::Unpacks,
            Err(failure) => Want::Fails(failure.cause()),
        };
        let words = result.as_ref().err().map(towline_cause::Failure::chain);
        assert_eq!(got, want, "{what}: {words:?}");
        assert_eq!(tree(outside.path()), before, "{what} changed the host");
        node.assert_clean();
        for (name, described) in tree(&store.join("layers")) {
            let name = String::from_utf8_lossy(&name).into_owned();
            assert!(
                !described.contains("trusted.overlay.redirect"),
                "{what}: {name}"
            );
        }
        if let Ok(image) = result {
            node.images.remove(&image.id.to_string()).await.unwrap();
        }
    }
    assert_eq!(node.images.usage().await.unwrap().layers, 0);
}

#[tokio::test]
async fn an_error_names_the_entry() {
    let registry = Registry::start().await;
    let layer = Layer::new()
        .file("fine", "")
        .file("etc/../../passwd", "evil");
    let reference = registry
        .push(&Builder::new().layer(layer).build(), "named")
        .await;
    let failure = Node::new()
        .try_pull(&reference)
        .await
        .expect_err("it is refused");
    assert!(
        failure.chain().contains("etc/../../passwd"),
        "{}",
        failure.chain()
    );
}

#[tokio::test]
async fn symlinks_over_two_layers_lead_nowhere_outside() {
    let registry = Registry::start().await;
    let outside = tempfile::tempdir().unwrap();
    let host = outside.path().to_str().unwrap().to_owned();
    let below = Layer::new().symlink("d", &host);
    let above = Layer::new().file("d/x", "mine");
    let built = Builder::new().layer(below).layer(above).build();
    let reference = registry.push(&built, "two").await;
    let node = Node::new();
    let image = node.pull(&reference).await;
    assert!(node.images.lower_dirs(&image)[0].join("d/x").exists());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
