//! Fuzz targets of the unpacker: what almost is an archive never panics, never leaves its folder, and never means one thing to GNU tar
//! and another one here. See `towline_lab::fuzz` for how they run.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use towline_lab::fuzz::Target;
use towline_oci::Digest;
use towline_store::{Listing, StagedLayer, Store};

use super::{Attribute, Rights, extract};
use crate::Ceilings;

const PIECES: &[&[u8]] = &[
    b"../",
    b"/",
    b".wh.",
    b".wh..wh..opq",
    b"\0",
    b"ustar\x0000",
    b"ustar  \0",
    b"0000000\0",
    b"7777777\0",
    b"\x80\0\0\0\0\0\0\x01",
    b"20 path=../../evil\n",
    b"12 size=512\n",
    b"x",
    b"L",
    b"1",
    b"2",
    b"5",
    b"S",
    b"22 GNU.sparse.major=1\n",
    b"22 GNU.sparse.minor=0\n",
    b"27 GNU.sparse.realsize=512\n",
    b"24 GNU.sparse.map=0,512\n",
];

fn target(name: &'static str) -> Target {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/tar");
    Target::new(name, &corpus, PIECES)
}

fn ceilings() -> Ceilings {
    Ceilings {
        entries: 500,
        layer_bytes: 1 << 20,
        ..Ceilings::default()
    }
}

/// Writes the right checksum into every header: else most changes end there.
fn with_sums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// A store in memory, where the machine has such a place.
fn store(home: &tempfile::TempDir) -> Store {
    Store::open(&home.path().join("store")).unwrap()
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Unpacks into a staged layer, which leaves nothing when it is dropped; and whether it was accepted.
fn unpack(store: &Store, bytes: &[u8]) -> (StagedLayer, bool) {
    let layer = store.begin_layer(&Digest::of(bytes)).unwrap();
    let rights = Rights {
        // Devices and owners are not the question, and differ by who runs this.
        unprivileged: true,
        exact_owners: false,
    };
    let target = super::Target {
        root: std::fs::File::open(layer.path()).unwrap().into(),
        listing: Listing::new(layer.listing().unwrap()),
        rights,
        marks: &Attribute::of(rights),
    };
    let done = extract(bytes, target, &ceilings());
    (layer, done.is_ok())
}

/// Everything below a folder: kind, and content or target.
fn tree(root: &Path, at: &Path, found: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for entry in std::fs::read_dir(at).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        let what = if kind.is_dir() {
            b"directory".to_vec()
        } else if kind.is_symlink() {
            [
                b"-> ",
                std::fs::read_link(&path).unwrap().as_os_str().as_bytes(),
            ]
            .concat()
        } else if kind.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            b"special".to_vec()
        };
        found.insert(name, what);
        if kind.is_dir() {
            tree(root, &path, found);
        }
    }
}

fn trees(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    tree(root, root, &mut found);
    found
}

#[test]
fn fuzz_tar() {
    let home = home();
    std::fs::write(home.path().join("victim"), "the host's").unwrap();
    let store = store(&home);
    let mut round = 0;
    let accepted = target("tar").run(600, |input| {
        round += 1;
        let mut bytes = input.to_vec();
        // Every fourth is read with the sums it has.
        if round % 4 != 0 {
            with_sums(&mut bytes);
        }
        let (layer, accepted) = unpack(&store, &bytes);
        drop(layer);
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let staged = home.path().join("store/staging");
        assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0);
        let victim = std::fs::read(home.path().join("victim")).unwrap();
        assert_eq!(victim, b"the host's");
        accepted
    });
    let again = std::env::var_os("TOWLINE_FUZZ_ROUND").is_some();
    assert!(
        again || accepted > 5,
        "too little of it is an archive: {accepted}"
    );
}

/// What GNU tar makes of it, where it has no complaint.
fn gnu_tar(tar: &Path, bytes: &[u8], root: &Path) -> bool {
    let archive = root.with_extension("tar");
    std::fs::write(&archive, bytes).unwrap();
    let mut command = Command::new(tar);
    command
        .args([
            "--extract",
            "--no-same-owner",
            "--no-same-permissions",
            "--delay-directory-restore",
            "--file",
        ])
        .arg(&archive)
        .arg("--directory")
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = command.output().unwrap();
    std::fs::remove_file(&archive).unwrap();
    output.status.success()
}

#[test]
fn fuzz_differential_with_gnu_tar() {
    let Some(tar) = towline_sys::testing::need_program("tar") else {
        return;
    };
    let home = home();
    let store = store(&home);
    let mut both = 0_u64;
    target("differential").run(150, |input| {
        let mut bytes = input.to_vec();
        with_sums(&mut bytes);
        // Whiteouts are entries to GNU tar and marks to a layer.
        if bytes.windows(4).any(|window| window == b".wh.") {
            return false;
        }
        let theirs = tempfile::tempdir_in(home.path()).unwrap();
        let (layer, accepted) = unpack(&store, &bytes);
        if accepted && gnu_tar(&tar, &bytes, theirs.path()) {
            both += 1;
            let (ours, theirs) = (trees(&layer.path()), trees(theirs.path()));
            assert_eq!(ours, theirs, "two readers see two archives");
        }
        accepted
    });
    let again = std::env::var_os("TOWLINE_FUZZ_ROUND").is_some();
    assert!(again || both > 3, "too little to compare: {both}");
}
