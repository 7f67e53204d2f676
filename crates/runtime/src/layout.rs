//! Where everything is: state that dies with the machine's run below `state_dir`, the rest below `root`.

use std::path::{Path, PathBuf};

/// The two directories.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    state: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path, state: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state: state.to_owned(),
        }
    }

    /// Images and layers.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Writable layers, one directory a container.
    pub(crate) fn writable(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    pub(crate) fn sandbox(&self, id: &str) -> SandboxDir {
        SandboxDir(self.sandboxes().join(id))
    }

    pub(crate) fn container(&self, id: &str) -> ContainerDir {
        ContainerDir {
            state: self.containers().join(id),
            writable: self.writable().join(id),
        }
    }
}

/// The files of a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir(pub(crate) PathBuf);

impl SandboxDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("record.json")
    }

    pub(crate) fn netns(&self) -> PathBuf {
        self.0.join("netns")
    }

    pub(crate) fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// The shim's own state directory.
    pub(crate) fn shim(&self) -> PathBuf {
        self.0.join("shim")
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.shim().join(towline_shim_api::SOCKET_FILE)
    }
}

/// The files of a container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerDir {
    /// Record and bundle.
    pub(crate) state: PathBuf,
    /// Writable layer and mount point.
    pub(crate) writable: PathBuf,
}

impl ContainerDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("record.json")
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.state.join("bundle")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.writable.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.writable.join("work")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.writable.join("rootfs")
    }

    /// Mount points of image volumes.
    pub(crate) fn volume(&self, number: usize) -> PathBuf {
        self.writable.join("volumes").join(number.to_string())
    }
}
