//! Files with holes, as GNU tar writes them in all of its forms.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use towline_cause::Cause;
use towline_lab::image::{Builder, Layer};
use towline_sys::testing::need_program;

use crate::support::{Node, Registry, noise};

const FORMS: [&[&str]; 5] = [
    &["--format=gnu"],
    &["--format=oldgnu"],
    &["--format=posix", "--sparse-version=0.0"],
    &["--format=posix", "--sparse-version=0.1"],
    &["--format=posix", "--sparse-version=1.0"],
];

/// Name, size, and where bytes are: 4 KiB at each place.
fn files() -> Vec<(&'static str, u64, Vec<u64>)> {
    vec![
        ("a-hole-alone", 1 << 20, vec![]),
        ("begins-with-one", (1 << 20) + 4096, vec![1 << 20]),
        ("ends-with-one", 3 << 20, vec![0]),
        ("odd-size", 1_000_003, vec![65_536]),
        // More than an old header and one block behind it hold.
        ("many", 64 << 16, (0..60).map(|n| n << 16).collect()),
        // Larger than anything that is stored of it.
        ("huge", 1 << 36, vec![1 << 30, 1 << 35]),
    ]
}

fn fill(root: &Path) {
    for (name, size, places) in files() {
        let file = File::create(root.join(name)).unwrap();
        for at in places {
            file.write_all_at(&noise(4096, at + 1), at).unwrap();
        }
        file.set_len(size).unwrap();
    }
    std::fs::write(root.join("without-one"), noise(10_000, 5)).unwrap();
}

/// Whether two files have the same bytes and holes.
fn compare(ours: &Path, theirs: &Path) {
    let (our, their) = (ours.metadata().unwrap(), theirs.metadata().unwrap());
    assert_eq!(our.len(), their.len(), "{}", ours.display());
    assert!(
        our.blocks() <= their.blocks().max(64) * 2,
        "{} has no holes: {} blocks, theirs {}",
        ours.display(),
        our.blocks(),
        their.blocks()
    );
    let (our, their) = (File::open(ours).unwrap(), File::open(theirs).unwrap());
    let read = |file: &File, at| {
        let mut bytes = vec![0; 8192];
        let read = file.read_at(&mut bytes, at).unwrap();
        bytes.truncate(read);
        bytes
    };
    let name = ours.file_name().unwrap().to_str().unwrap();
    let sparse = files().into_iter().find(|(known, ..)| *known == name);
    let Some((_, size, mut places)) = sparse else {
        assert_eq!(read(&our, 0), read(&their, 0));
        return;
    };
    places.extend([0, size / 2, size.saturating_sub(8192)]);
    for at in places {
        let at = at.saturating_sub(100);
        assert_eq!(read(&our, at), read(&their, at), "{name} at {at}");
    }
}

#[tokio::test]
async fn holes_are_those_of_gnu_tar_in_every_form() {
    let Some(tar) = need_program("tar") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    fill(&source);
    let registry = Registry::start().await;
    for (number, form) in FORMS.iter().enumerate() {
        let archive = home.path().join("archive.tar");
        let status = Command::new(&tar)
            .args(["-S", "-c", "--hole-detection=seek"])
            .args(*form)
            .arg("-f")
            .arg(&archive)
            .arg(".")
            .current_dir(&source)
            .status();
        assert!(status.unwrap().success());
        let bytes = std::fs::read(&archive).unwrap();
        assert!(bytes.len() < 2 << 20, "{form:?}: the archive has no holes");
        let name = format!("sparse{number}");
        let built = Builder::new().layer(Layer::from_archive(bytes)).build();
        let reference = registry.push(&built, &name).await;
        let node = Node::new();
        let image = node.pull(&reference).await;
        let dir = node.images.lower_dirs(&image)[0].clone();
        let entries = std::fs::read_dir(&source).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), files().len() + 1);
        for name in &names {
            compare(&dir.join(name), &source.join(name));
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), names.len());
        // Also where reading every zero would take minutes.
        assert_eq!(node.images.verify().await.unwrap(), [], "{form:?}");
        let huge = File::options().write(true).open(dir.join("huge")).unwrap();
        huge.write_all_at(b"!", 1 << 31).unwrap();
        let damage = node.images.verify().await.unwrap();
        assert_eq!(damage.len(), 1, "{form:?}: {damage:?}");
        assert!(damage[0].to_string().contains("\"huge\""), "{damage:?}");
    }
}

/// An archive with a header of the old form: size with holes, and pieces.
fn old(stored: &[u8], real: u64, pieces: &[(u64, u64)]) -> Layer {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("hollow").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(stored.len() as u64);
    let bytes = header.as_mut_bytes();
    let number = |field: &mut [u8], value: u64| {
        // Base 256 holds every number.
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    };
    for (n, (at, len)) in pieces.iter().enumerate() {
        number(&mut bytes[386 + 24 * n..][..12], *at);
        number(&mut bytes[398 + 24 * n..][..12], *len);
    }
    number(&mut bytes[483..495], real);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend(stored);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    Layer::from_archive(archive)
}

#[tokio::test]
async fn a_map_that_lies_ends_the_layer_and_the_entry_is_named() {
    let registry = Registry::start().await;
    let node = Node::new();
    let kib = [b'x'; 1024];
    for (name, layer, cause, want) in [
        (
            "overlap",
            old(&kib, 9999, &[(0, 512), (511, 512)]),
            Cause::LayerExtractFailed,
            "overlap",
        ),
        (
            "order",
            old(&kib, 9999, &[(5000, 512), (0, 512)]),
            Cause::LayerExtractFailed,
            "order",
        ),
        (
            "behind",
            old(&kib, 1000, &[(0, 1024)]),
            Cause::LayerExtractFailed,
            "beyond the 1000",
        ),
        (
            "more",
            old(&kib, 9999, &[(0, 2048)]),
            Cause::LayerExtractFailed,
            "places 2048 bytes",
        ),
        (
            "less",
            old(&kib, 9999, &[(0, 512)]),
            Cause::LayerExtractFailed,
            "places 512 bytes",
        ),
        (
            "overflow",
            old(&kib, u64::MAX >> 1, &[(0, 512), (u64::MAX >> 1, 512)]),
            Cause::LayerExtractFailed,
            "beyond",
        ),
        // No archive holds that many bytes, a hole does.
        (
            "tebibytes",
            old(&kib, 1 << 50, &[(0, 1024)]),
            Cause::ImageTooLarge,
            "layer-bytes",
        ),
    ] {
        let built = Builder::new().layer(layer).build();
        let reference = registry.push(&built, name).await;
        let failure = node.try_pull(&reference).await.expect_err(name);
        let chain = failure.chain();
        assert_eq!(failure.cause(), cause, "{name}: {chain}");
        assert!(chain.contains(want), "{name}: {chain}");
        assert!(chain.contains("hollow"), "{name}: {chain}");
        node.assert_clean();
    }
    let built = Builder::new()
        .layer(old(&kib, 9999, &[(0, 512), (9000, 512)]))
        .build();
    let reference = registry.push(&built, "right").await;
    let image = node.pull(&reference).await;
    let bytes = std::fs::read(node.images.lower_dirs(&image)[0].join("hollow")).unwrap();
    assert_eq!(bytes.len(), 9999);
    assert!(bytes[..512] == kib[..512] && bytes[9000..9512] == kib[..512]);
    assert!(
        bytes[512..9000]
            .iter()
            .chain(&bytes[9512..])
            .all(|byte| *byte == 0)
    );
}
