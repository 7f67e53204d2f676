//! The lab's scenarios on real nodes: staged, seen to fail, explained, mended, seen to run.
//!
//! [`Lab`] starts nodes as scenarios need them and [`Lab::stage`] puts one scenario up, in a namespace and behind a host of its own, so
//! that many stand side by side. The phases are calls of their own: whoever shows them prints in between.

mod cache;
mod containerd;
mod error;
mod kubectl;
mod nodes;
pub(crate) mod objects;
pub(crate) mod publish;
mod staged;
mod way;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::OnceCell;
use towline_lab::scenario::{Ground, Place, Scenario, Told};

pub use containerd::missing as missing_for_containerd;
pub use error::LabError;
pub use kubectl::kubectl;
pub use publish::PublishError;
pub use staged::Staged;

use crate::{Handle, TempDir};
use nodes::Kind;

/// A user that exists and may not pull what the scenarios pull.
const OTHER_USER: &str = "other-team";
/// A user whose time is over.
const EXPIRED_USER: &str = "old-robot";

/// A login to the lab's registry. A person would type it.
#[derive(Debug, Clone)]
pub struct Account {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// Where a scenario's objects and images are.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// The namespace of its objects.
    pub(crate) namespace: String,
    /// The name of its workload.
    pub(crate) object: String,
    /// The registry that images are pushed to.
    pub(crate) registry: SocketAddr,
    /// How images name the scenario's own host.
    pub(crate) host: String,
    /// How they name the cache in front of it; empty where there is none.
    pub(crate) cache: String,
}

impl Scene {
    /// An image as its objects name it.
    pub(crate) fn image(&self, image: &str) -> String {
        let nobody = format!("sha256:{}", "0123456789abcdef".repeat(4));
        image
            .replace("{registry}", &self.registry.to_string())
            .replace("{host}", &self.host)
            .replace(cache::NAME, &self.cache)
            .replace("{digest}", &nobody)
    }
}

/// Nodes, name server and authorities of a run of scenarios. The folder goes when it is dropped.
pub struct Lab {
    ground: Ground,
    account: Account,
    nodes: [OnceCell<nodes::Node>; Kind::ALL.len()],
    runtime: Runtime,
    folder: TempDir,
}

/// The container runtime of a lab's nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Runtime {
    /// Our own.
    #[default]
    Towline,
    /// The real containerd.
    Containerd,
}

impl Runtime {
    /// Whether a scenario can be played on it. Small, slow and broken disks are those of our own runtime, which needs no image for its
    /// sandboxes; a proxy for one registry alone and `registries.conf` are not for containerd.
    pub fn plays(self, scenario: &Scenario) -> bool {
        let host = &scenario.host;
        match self {
            Self::Towline => scenario.place != Place::PauselessNode,
            Self::Containerd => {
                matches!(scenario.place, Place::Node | Place::PauselessNode)
                    && !scenario.ours_alone
                    && host.proxy.is_none()
                    && !matches!(host.told, Some(Told::Registries(_)))
            }
        }
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Lab {
    /// Prepares a lab. Nodes start when the first scenario needs them.
    pub async fn new(runtime: Runtime) -> Result<Self, LabError> {
        let folder = TempDir::new().map_err(|source| LabError::Io {
            what: "make a folder for the lab".to_owned(),
            source,
        })?;
        let ground = Ground::new(fastrand::u16(..), runtime == Runtime::Containerd).await;
        let ground = ground.map_err(|source| LabError::Io {
            what: "start the lab's name server".to_owned(),
            source,
        })?;
        Ok(Self {
            ground,
            account: Account {
                username: "demo".to_owned(),
                password: "correct-horse".to_owned(),
            },
            nodes: [const { OnceCell::const_new() }; Kind::ALL.len()],
            runtime,
            folder,
        })
    }

    /// The login that scenarios are mended with.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The node on which a scenario happens; it is started if it does not run. A scenario that is text has the common one.
    pub async fn node(&self, scenario: &Scenario) -> Result<&Handle, LabError> {
        let kind = Kind::of(&scenario.place);
        let node = self.nodes[kind as usize]
            .get_or_try_init(|| {
                let (folder, runtime) = (self.folder.path(), self.runtime);
                nodes::start(kind, runtime, folder, &self.ground, &self.account)
            })
            .await?;
        Ok(&node.handle)
    }

    /// Where the files of the scenario's node lie.
    fn home(&self, scenario: &Scenario) -> PathBuf {
        nodes::home(self.folder.path(), Kind::of(&scenario.place))
    }

    /// Puts a scenario up: its host with all its faults, its images, its objects.
    pub async fn stage<'a>(&'a self, scenario: &'a Scenario) -> Result<Staged<'a>, LabError> {
        let node = self.node(scenario).await?;
        Staged::new(self, node, scenario).await
    }

    /// Stops the nodes; gives what did not end in time.
    pub async fn shutdown(self, deadline: Duration) -> Vec<String> {
        let running = self
            .nodes
            .into_iter()
            .filter_map(OnceCell::into_inner)
            .map(|node| node.stop(deadline));
        let left = futures::future::join_all(running).await;
        nodes::clear(self.folder.path());
        left.into_iter().flatten().collect()
    }
}
