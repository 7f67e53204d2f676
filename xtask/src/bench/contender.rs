//! Who takes part, and how each pulls.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::process::{self, Cost, Daemon};

/// Who pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Towline,
    Containerd,
    Podman,
    Skopeo,
    Crane,
    Bound,
}

impl Contender {
    /// Everybody, in the order of the table.
    pub(crate) const ALL: [Self; 6] = [
        Self::Towline,
        Self::Containerd,
        Self::Podman,
        Self::Skopeo,
        Self::Crane,
        Self::Bound,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Towline => "towline",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Skopeo => "skopeo",
            Self::Crane => "crane",
            Self::Bound => "bound",
        }
    }

    /// Whether a pull ends with files to run, and not only with a download.
    pub(crate) fn unpacks(self) -> bool {
        matches!(self, Self::Towline | Self::Containerd | Self::Podman)
    }

    /// Whether its programs are on this machine.
    pub(crate) fn is_here(self) -> bool {
        if self == Self::Bound && cfg!(debug_assertions) {
            return false;
        }
        let programs: &[&str] = match self {
            Self::Towline | Self::Bound => &[],
            Self::Containerd => &["containerd", "crictl"],
            Self::Podman => &["podman"],
            Self::Skopeo => &["skopeo"],
            Self::Crane => &["crane"],
        };
        programs.iter().all(|name| in_path(name))
    }

    /// Pulls `image` into `disk`, a new file system. `work` is for logs and sockets.
    pub(crate) fn pull(
        self,
        image: &str,
        disk: &Path,
        work: &Path,
        (towline, layout): (&Path, &Path),
    ) -> anyhow::Result<Cost> {
        let log = work.join(format!("{}.log", self.name()));
        let mut command = match self {
            Self::Towline => {
                let mut command = Command::new(towline);
                command.arg("pull").arg("--data-dir").arg(disk);
                if !is_loopback(image) {
                    command.arg("--plain-http");
                }
                command.arg(image);
                command
            }
            Self::Containerd => return containerd(image, disk, work, &log),
            Self::Bound => {
                let own = std::env::current_exe().context("find this program")?;
                let mut command = Command::new(own);
                command.args(["bench", "bound"]).arg(layout).arg(disk);
                command
            }
            Self::Podman => {
                let mut command = Command::new("podman");
                command.arg("--root").arg(disk.join("root"));
                command.arg("--runroot").arg(disk.join("run"));
                command.args(["--storage-driver", "overlay", "pull", "--quiet"]);
                command.arg("--tls-verify=false").arg(image);
                command
            }
            Self::Skopeo => {
                let mut command = Command::new("skopeo");
                command.args([
                    "--insecure-policy",
                    "copy",
                    "--quiet",
                    "--src-tls-verify=false",
                ]);
                command.arg(format!("docker://{image}"));
                command.arg(format!("oci:{}:v1", disk.join("oci").display()));
                command
            }
            Self::Crane => {
                let mut command = Command::new("crane");
                command.args(["pull", "--insecure", "--format", "oci", image]);
                command.arg(disk.join("oci"));
                command
            }
        };
        process::measured(&mut command, &log)
    }
}

/// A daemon as shipped, new for every run, asked by crictl as a kubelet would. The daemon's start is not counted.
fn containerd(image: &str, disk: &Path, work: &Path, log: &Path) -> anyhow::Result<Cost> {
    let (socket, config) = (work.join("containerd.sock"), work.join("containerd.toml"));
    let hosts = work.join("certs.d");
    let mut plain = String::new();
    if !is_loopback(image) {
        // As shipped it speaks TLS to whatever is not on loopback.
        let host = image.split('/').next().unwrap_or_default();
        let dir = hosts.join(host);
        std::fs::create_dir_all(&dir)?;
        let text = format!("server = \"http://{host}\"\n");
        std::fs::write(dir.join("hosts.toml"), text)?;
        plain = format!(
            "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{}'\n",
            hosts.display()
        );
    }
    let text = format!(
        "version = 3\nroot = '{}'\nstate = '{}'\n[grpc]\naddress = '{}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n{plain}",
        disk.join("root").display(),
        disk.join("state").display(),
        socket.display()
    );
    std::fs::write(&config, text).context("write containerd's config")?;
    let mut daemon = Daemon::start(
        Command::new("containerd").arg("--config").arg(&config),
        &work.join("containerd-daemon.log"),
    )?;
    let endpoint = format!("unix://{}", socket.display());
    let crictl = |arguments: &[&str]| {
        let mut command = Command::new("crictl");
        command.args([
            "--runtime-endpoint",
            &endpoint,
            "--image-endpoint",
            &endpoint,
        ]);
        command.args(arguments);
        command
    };
    daemon.until(|| {
        crictl(&["images"])
            .output()
            .is_ok_and(|output| output.status.success())
    })?;
    process::measured_beside(&mut crictl(&["pull", image]), log, &daemon)
}

fn is_loopback(image: &str) -> bool {
    image.starts_with("127.")
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir: PathBuf| dir.join(name).is_file())
}
