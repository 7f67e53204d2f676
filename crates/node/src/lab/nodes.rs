//! The nodes of the lab: one that most scenarios share, one with a small disk, one that starts few pulls.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towline_lab::scenario::{Ground, Place};
use towline_registry::access::{Access, Rule, Users, Who};
use towline_sys::{fs, mount};

use super::containerd::{self, Containerd};
use super::{Account, LabError, OTHER_USER, Runtime, publish, way};
use crate::{Foreign, Handle, Options, Service};

/// Bytes of the small disk.
const SMALL: u64 = 12 << 20;
/// Bytes of the small disk once it was enlarged.
const LARGE: u64 = 512 << 20;
/// Files that the store of the node takes whose inodes are few: more than it needs by itself, fewer than the image has.
const FEW_FILES: u64 = 3000;
/// The same once there are enough.
const MANY_FILES: u64 = 100_000;
/// How long the nodes wait for a registry. Shorter than outside, so that a lesson is short; long enough for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(4);

/// A node of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Common,
    Small,
    Slow,
    Broken,
    FewFiles,
    Pauseless,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Common,
        Self::Small,
        Self::Slow,
        Self::Broken,
        Self::FewFiles,
        Self::Pauseless,
    ];

    /// The node of a place. A scenario that is text has the common one.
    pub(super) fn of(place: &Place) -> Self {
        match place {
            Place::Node | Place::Text { .. } => Self::Common,
            Place::SmallNode => Self::Small,
            Place::SlowNode => Self::Slow,
            Place::BrokenNode => Self::Broken,
            Place::FewFilesNode => Self::FewFiles,
            Place::PauselessNode => Self::Pauseless,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Common => "lab",
            Self::Small => "small",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::FewFiles => "few-files",
            Self::Pauseless => "pauseless",
        }
    }
}

/// Where a node keeps what it pulled.
fn store(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(kind.name()).join("runtime")
}

/// A node that runs, and its runtime where that is another program.
pub(super) struct Node {
    pub(super) handle: Handle,
    containerd: Option<Containerd>,
}

impl Node {
    /// Stops it; gives what did not end in time.
    pub(super) async fn stop(self, deadline: Duration) -> Vec<String> {
        let left = self.handle.shutdown(deadline).await;
        if let Some(containerd) = self.containerd {
            containerd.stop().await;
        }
        left
    }
}

/// Where a node's own files lie.
pub(super) fn home(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(kind.name())
}

/// Starts a node below this folder.
pub(super) async fn start(
    kind: Kind,
    runtime: Runtime,
    folder: &Path,
    ground: &Ground,
    account: &Account,
) -> Result<Node, LabError> {
    let mut options = Options::new(&folder.join(kind.name()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (
        options.api_listen,
        options.registry_listen,
        options.kubelet_listen,
    ) = (any, any, any);
    kind.name().clone_into(&mut options.node_name);
    options.resolver = vec![ground.resolver()];
    options.endpoints = way::prepare(&home(folder, kind))?;
    options.proxies = way::proxies();
    options.extra_ca_pem = vec![ground.authority_pem().into_bytes()];
    options.registry_access = access(account)?;
    let timeouts = &mut options.registry_timeouts;
    timeouts.dns = PATIENCE;
    timeouts.connect = PATIENCE;
    timeouts.tls = PATIENCE;
    timeouts.headers = PATIENCE;
    timeouts.idle = PATIENCE;
    options.registry_retries.attempts = 2;
    options.max_parallel_image_pulls = None;
    (options.registry_pull_qps, options.registry_burst) = match kind {
        Kind::Slow => (0.05, 1),
        _ => (0.0, 0),
    };
    disk(kind, folder)?;
    let containerd = match runtime {
        Runtime::Towline => None,
        Runtime::Containerd => {
            options.registry_listen = containerd::free_port()?;
            let home = home(folder, kind);
            let told = containerd::Told {
                home: &home.join("containerd"),
                registry: options.registry_listen,
                resolver: ground.system_resolver(),
                authority: &ground.authority_pem(),
                trees: &home.join("certs.d"),
            };
            Some(Containerd::start(told).await?)
        }
    };
    options.foreign = containerd.as_ref().map(|containerd| Foreign {
        socket: containerd.socket(),
        cgroup: containerd.cgroup(),
    });
    let handle = match Service::start(options).await {
        Ok(handle) => handle,
        Err(error) => {
            if let Some(containerd) = containerd {
                Box::pin(containerd.stop()).await;
            }
            return Err(error.into());
        }
    };
    let node = Node { handle, containerd };
    match Box::pin(furnish(&node, kind, folder, account)).await {
        Ok(()) => Ok(node),
        Err(error) => {
            // What did not end in time is the lesser trouble.
            drop(Box::pin(node.stop(PATIENCE)).await);
            Err(error)
        }
    }
}

/// Puts a disk of its own under the store of a node that has one.
fn disk(kind: Kind, folder: &Path) -> Result<(), LabError> {
    let disk = match kind {
        Kind::Small => Some(SMALL),
        Kind::FewFiles => Some(LARGE),
        Kind::Common | Kind::Slow | Kind::Broken | Kind::Pauseless => None,
    };
    if let Some(bytes) = disk {
        let store = store(folder, kind);
        fs::create_dir_all(&store)?;
        mount::tmpfs(&store, bytes)?;
    }
    if kind == Kind::FewFiles {
        mount::limit_tmpfs_inodes(store(folder, kind), FEW_FILES)?;
    }
    Ok(())
}

/// What a node has to have before the first pod.
async fn furnish(
    node: &Node,
    kind: Kind,
    folder: &Path,
    account: &Account,
) -> Result<(), LabError> {
    if node.containerd.is_some() && kind != Kind::Pauseless {
        publish::pause(node.handle.facts().registry, account).await?;
    }
    if kind == Kind::Broken {
        // What is open stays writable, so that the node goes on: nothing new can be written where downloads lie.
        for spool in spools(folder) {
            fs::create_dir_all(&spool)?;
            let how = mount::Bind {
                read_only: true,
                ..mount::Bind::default()
            };
            mount::bind(&spool, &spool, how)?;
        }
    }
    Ok(())
}

/// Where the broken node keeps downloads and layers that are not complete.
fn spools(folder: &Path) -> [PathBuf; 2] {
    let images = store(folder, Kind::Broken).join("images");
    [images.join("spool"), images.join("staging")]
}

/// Makes the broken disk writable again.
pub(super) fn make_writable(folder: &Path) -> Result<(), LabError> {
    for spool in spools(folder) {
        mount::unmount(spool)?;
    }
    Ok(())
}

/// Makes the small disk large.
pub(super) fn enlarge(folder: &Path) -> Result<(), LabError> {
    Ok(mount::resize_tmpfs(store(folder, Kind::Small), LARGE)?)
}

/// Lets the disk that takes few files take many.
pub(super) fn more_files(folder: &Path) -> Result<(), LabError> {
    let store = store(folder, Kind::FewFiles);
    Ok(mount::limit_tmpfs_inodes(store, MANY_FILES)?)
}

/// Takes the disks of the lab away.
pub(super) fn clear(folder: &Path) {
    // Without such a node nothing is mounted there, which is no error.
    for place in spools(folder)
        .into_iter()
        .chain([Kind::Small, Kind::FewFiles].map(|kind| store(folder, kind)))
    {
        if let Err(error) = mount::unmount(place) {
            tracing::warn!(%error, "a disk of the lab stays");
        }
    }
}

/// Repositories below `public/` are read by anyone; the account may do everything, the other team pull.
fn access(account: &Account) -> Result<Access, LabError> {
    let mut users = Users::default();
    users.insert(&account.username, &account.password.clone().into())?;
    users.insert(OTHER_USER, &account.password.clone().into())?;
    let rules = vec![
        Rule::new("public/*", Who::Anyone, Who::AnyUser),
        Rule::new("*", Who::AnyUser, Who::AnyUser),
    ];
    Ok(Access { rules, users })
}
