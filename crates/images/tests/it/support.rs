//! A registry with a proxy before it, and a node's images.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use towline_distribution::{Client, Options as ClientOptions};
use towline_images::{Image, Images, Options, PullRequest, Unpacking};
use towline_keyring::Credential;
use towline_lab::faults::{Proxy, Rule};
use towline_lab::image;
use towline_oci::{Platform, Reference};

/// Longer than anything here takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Names another program that unpacks.
pub(crate) const UNPACKER: &str = "TOWLINE_TEST_UNPACKER";

/// A registry, and a proxy before it that sees and breaks requests.
pub(crate) struct Registry {
    pub(crate) proxy: Proxy,
    handle: towline_registry::Handle,
    _root: TempDir,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let root = in_memory();
        let handle = towline_registry::Service::start(towline_registry::Options::new(root.path()))
            .await
            .unwrap();
        let proxy = Proxy::before(handle.local_addr(), Vec::new())
            .await
            .unwrap();
        Self {
            proxy,
            handle,
            _root: root,
        }
    }

    /// Pushes under `name:latest`, past the proxy.
    pub(crate) async fn push(&self, image: &image::Image, name: &str) -> Reference {
        image
            .push(self.handle.local_addr(), name, "latest", None)
            .await
            .unwrap();
        self.reference(name)
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        let text = format!("{}/{name}", self.proxy.local_addr());
        Reference::parse(&text).unwrap().with_default_tag()
    }

    pub(crate) fn break_by(&self, rules: Vec<Rule>) {
        self.proxy.set_rules(rules);
    }

    /// Paths of the GET requests for blobs so far, with the value of `Range`.
    pub(crate) fn blobs_asked(&self) -> Vec<(String, Option<String>)> {
        let seen = self.proxy.seen().into_iter();
        seen.filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"))
            .map(|seen| (seen.path, seen.headers.get("range").cloned()))
            .collect()
    }
}

/// A node's images in a directory of their own.
pub(crate) struct Node {
    pub(crate) images: Images,
    pub(crate) dir: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = open(&dir.path().join("store"), change);
        Self { images, dir }
    }

    /// As [`Node::new`], on a file system without a disk: for many pulls, each of which waits for the disk elsewhere.
    pub(crate) fn in_memory(change: impl FnOnce(&mut Options)) -> Self {
        let dir = in_memory();
        let images = open(&dir.path().join("store"), change);
        Self { images, dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) async fn pull(&self, reference: &Reference) -> Image {
        self.try_pull(reference)
            .await
            .map_err(|failure| failure.chain())
            .unwrap()
    }

    pub(crate) async fn try_pull(
        &self,
        reference: &Reference,
    ) -> Result<Image, towline_cause::Failure> {
        let request = PullRequest::new(reference.clone(), Credential::Anonymous);
        tokio::time::timeout(LONG, self.images.pull(request))
            .await
            .expect("the pull ends")
    }

    /// Asserts that nothing but whole things is on disk.
    pub(crate) fn assert_clean(&self) {
        assert_clean(&self.root());
    }

    /// Bytes of each file in the spool.
    pub(crate) fn spooled(&self) -> Vec<u64> {
        spooled(&self.root())
    }
}

/// A directory in memory where the machine has such a place.
fn in_memory() -> TempDir {
    let place = Path::new("/dev/shm");
    tempfile::tempdir_in(place)
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// The program that unpacks, which cargo built beside this test; or another one, where this test was started somewhere else.
pub(crate) fn unpacker() -> PathBuf {
    if let Some(program) = std::env::var_os(UNPACKER) {
        return program.into();
    }
    let exe = std::env::current_exe().unwrap();
    let program = exe.ancestors().nth(2).unwrap().join("examples/unpacker");
    assert!(program.exists(), "{} is not built", program.display());
    program
}

pub(crate) fn open(root: &Path, change: impl FnOnce(&mut Options)) -> Images {
    let mut client = ClientOptions::default();
    // A body that stalls is taken up again soon.
    client.timeouts.idle = Duration::from_secs(1);
    let client = Client::new(client).unwrap();
    let unpacking = Unpacking::by(unpacker(), []);
    let mut options = Options::new(root, client, Platform::host(), unpacking);
    change(&mut options);
    Images::open(options)
        .map_err(|failure| failure.chain())
        .unwrap()
}

pub(crate) fn assert_clean(root: &Path) {
    let left: Vec<_> = std::fs::read_dir(root.join("staging"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left in the staging place: {left:?}");
}

pub(crate) fn spooled(root: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(root.join("spool")).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect()
}

/// Names of everything below `root` with what can be seen of each: type and mode, owner, size or target or device, mtime, number of links,
/// content, extended attributes.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn walk(root: &Path, path: &Path, found: &mut BTreeMap<Vec<u8>, String>) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let inside = path.strip_prefix(root).unwrap();
    let what = if meta.is_symlink() {
        format!("-> {}", std::fs::read_link(path).unwrap().display())
    } else if meta.is_file() {
        let content = std::fs::read(path).unwrap();
        format!(
            "{} links {}",
            meta.nlink(),
            towline_oci::Digest::of(&content)
        )
    } else {
        format!("device {}", meta.rdev())
    };
    let time = (meta.mtime(), meta.mtime_nsec());
    let described = format!(
        "{:o} {}:{} {time:?} {what} {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        xattrs(path)
    );
    found.insert(inside.as_os_str().as_bytes().to_vec(), described);
    if meta.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            walk(root, &entry, found);
        }
    }
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    let mut all: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let name = String::from_utf8_lossy(name).into_owned();
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            format!("{name}={}", value[..length].escape_ascii())
        })
        .collect();
    all.sort();
    all.join(" ")
}

/// One extended attribute.
pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1 << 12];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        // xorshift
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
