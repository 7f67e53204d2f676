//! The registry that everybody pulls from: docker-registry on loopback, filled from OCI layouts.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::process::Daemon;
use super::pull::Image;
use super::scratch;

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) daemon: Daemon,
    /// Where it keeps what it serves.
    pub(crate) blobs: PathBuf,
}

impl Registry {
    /// Starts a registry in `dir` and pushes each image to it as `NAME:v1`, unless an earlier run did.
    pub(crate) fn start(dir: &Path, images: &[Image]) -> anyhow::Result<Self> {
        let root = dir.join("registry");
        std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
        let address = free_address()?;
        let mut daemon = serve(dir, &root, address, None)?;
        daemon.until(|| TcpStream::connect(address).is_ok())?;
        for image in images {
            let name = &image.name;
            let pushed = root.join("docker/registry/v2/repositories").join(name);
            if pushed.join("_manifests/tags/v1").exists() {
                continue;
            }
            let reference = format!("{address}/{name}:v1");
            scratch::run(
                Command::new("crane")
                    .args(["push", "--insecure"])
                    .arg(&image.layout)
                    .arg(reference),
            )?;
        }
        Ok(Self {
            address,
            daemon,
            blobs: root,
        })
    }

    /// The same registry in a network namespace.
    pub(crate) fn behind(self, namespace: &str, dir: &Path) -> anyhow::Result<Self> {
        let Self { daemon, blobs, .. } = self;
        drop(daemon);
        let address = SocketAddr::new(super::link::REGISTRY.parse()?, 5000);
        let mut daemon = serve(dir, &blobs, address, Some(namespace))?;
        let wait = std::time::Duration::from_secs(1);
        daemon.until(|| TcpStream::connect_timeout(&address, wait).is_ok())?;
        Ok(Self {
            address,
            daemon,
            blobs,
        })
    }
}

fn serve(
    dir: &Path,
    root: &Path,
    address: SocketAddr,
    namespace: Option<&str>,
) -> anyhow::Result<Daemon> {
    let config = dir.join("registry.json");
    let text = serde_json::json!({
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": root}},
        "http": {"addr": address.to_string()},
    });
    std::fs::write(&config, text.to_string())?;
    let mut command = match namespace {
        None => Command::new("docker-registry"),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, "docker-registry"]);
            command
        }
    };
    Daemon::start(command.arg("serve").arg(&config), &dir.join("registry.log"))
}

/// An address of loopback that nobody listens at.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
