//! Where everything is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use towline_oci::Digest;

const SEALED: &str = "sealed";

/// The paths of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    /// Differs between processes, so that nothing new meets a leftover.
    stamp: u128,
    next: AtomicU64,
    /// Differs between starts of the machine: what was written in this one is in the page cache at least.
    boot: String,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        let stamp = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            root: root.to_owned(),
            stamp,
            next: AtomicU64::new(0),
            // Where the kernel does not say, no other process is taken to have run in this start of the machine.
            boot: boot.map_or_else(|_| format!("{stamp:x}"), |id| id.trim().replace('-', "")),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// What a repair keeps until something right is in its place.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.root.join("records.redb")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        by_digest(&self.blobs(), digest)
    }

    /// The directory that holds `fs` and `layer.json`.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        by_digest(&self.layers(), diff_id)
    }

    pub(crate) fn spooled(&self, digest: &Digest) -> PathBuf {
        self.spool()
            .join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Where a whole layer waits to become durable.
    pub(crate) fn sealed(&self, diff_id: &Digest) -> PathBuf {
        let (algorithm, hex) = (diff_id.algorithm().name(), diff_id.hex());
        let name = format!("{SEALED}-{}-{algorithm}-{hex}", self.boot);
        self.staging().join(name)
    }

    /// The layer that was sealed under this name since the machine started.
    pub(crate) fn sealed_layer(&self, name: &str) -> Option<Digest> {
        let mut parts = name.splitn(4, '-');
        let mut part = || parts.next();
        (part()? == SEALED && part()? == self.boot).then_some(())?;
        digest_of(part()?, part()?)
    }

    /// A name in the staging place that nobody else gets.
    pub(crate) fn fresh(&self, what: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.staging()
            .join(format!("{what}-{:x}-{number}", self.stamp))
    }
}

fn by_digest(base: &Path, digest: &Digest) -> PathBuf {
    base.join(digest.algorithm().name()).join(digest.hex())
}

/// The digest whose algorithm's directory is `algorithm` and whose file name is `hex`.
pub(crate) fn digest_of(algorithm: &str, hex: &str) -> Option<Digest> {
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// The digests that name the entries of `<base>/<algorithm>/`; foreign names are left out.
pub(crate) fn digests_in(base: &Path) -> Result<Vec<Digest>, towline_sys::fs::FsError> {
    let mut digests = Vec::new();
    for algorithm in ["sha256", "sha512"] {
        for name in names(&base.join(algorithm))? {
            digests.extend(digest_of(algorithm, &name));
        }
    }
    Ok(digests)
}

/// The names in a directory that are UTF-8; none where it does not exist.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, towline_sys::fs::FsError> {
    /// Far more than a node holds.
    const MOST: usize = 10_000_000;
    match towline_sys::fs::read_dir_names(dir, MOST) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(names) => Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect()),
    }
}
