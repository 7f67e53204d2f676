//! Where things are in a pod's state directory.
//!
//! ```text
//! sandbox.json          written by the runtime: what the pod is
//! lock                  held by the shim as long as it lives
//! shim.sock             its socket
//! shim.log              its own words
//! trace.log             what the OCI library said during its last call
//! empty/                an empty directory
//! oci/<id>/             the OCI library's state of a container
//! bundles/<id>/         the bundle as the library sees it
//! containers/<id>.json  a container's state
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use towline_shim_api::{CONFIG_FILE, CONTAINERS_DIR, ContainerState, SandboxConfig};
use towline_sys::fs::{self, FsError};

/// Largest JSON document of the runtime or our own that is read, in bytes.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Most containers of a pod, those ended included.
pub(crate) const MAX_CONTAINERS: usize = 1024;

/// A pod's state directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The directory, absolute.
    pub(crate) root: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            root: std::fs::canonicalize(root)?,
        })
    }

    /// Makes the directories; only root may look into the state directory.
    pub(crate) fn create(&self) -> Result<(), FsError> {
        fs::set_mode(&self.root, 0o700)?;
        for dir in [self.empty(), self.oci(), self.bundles(), self.containers()] {
            fs::create_dir_all_mode(dir, 0o700)?;
        }
        Ok(())
    }

    pub(crate) fn config(&self) -> Result<SandboxConfig, String> {
        let path = self.root.join(CONFIG_FILE);
        let bytes = fs::read_bounded(&path, DOCUMENT_LIMIT)
            .map_err(|error| towline_sys::task::chain(&error))?;
        let config: SandboxConfig = serde_json::from_slice(&bytes)
            .map_err(|error| format!("read {}: {error}", path.display()))?;
        let (oldest, newest) = (towline_shim_api::OLDEST_VERSION, towline_shim_api::VERSION);
        if !(oldest..=newest).contains(&config.version) {
            return Err(format!(
                "{} has version {}, this program knows {oldest} to {newest}",
                path.display(),
                config.version
            ));
        }
        Ok(config)
    }

    /// Takes the lock that the shim holds for life; `None` when another has it.
    pub(crate) fn lock(&self) -> std::io::Result<Option<File>> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("shim.log")
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.root.join("trace.log")
    }

    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub(crate) fn oci(&self) -> PathBuf {
        self.root.join("oci")
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.root.join("bundles")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join(CONTAINERS_DIR)
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(format!("{id}.json"))
    }

    /// Writes a container's state, so that it survives the shim.
    pub(crate) fn save(&self, state: &ContainerState) -> Result<(), String> {
        let json = serde_json::to_vec_pretty(state).map_err(|error| error.to_string())?;
        fs::replace(self.container(&state.id), &json, 0o600)
            .map_err(|error| towline_sys::task::chain(&error))
    }

    /// The states written before, unreadable ones left out.
    pub(crate) fn saved(&self) -> Vec<ContainerState> {
        let names = fs::read_dir_names(self.containers(), MAX_CONTAINERS).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| fs::read_bounded(self.containers().join(name), DOCUMENT_LIMIT).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect()
    }

    /// Forgets a container's files.
    pub(crate) fn forget(&self, id: &str) -> Result<(), FsError> {
        fs::remove_dir_all(self.oci().join(id))?;
        fs::remove_dir_all(self.bundles().join(id))?;
        fs::remove_file(self.container(id))
    }
}

/// Whether `id` can be a container's: also safe as a file name.
pub(crate) fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "0a_b.c-d", &"x".repeat(128)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
