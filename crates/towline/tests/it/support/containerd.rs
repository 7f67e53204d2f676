//! The real containerd with a place of its own: directories, bridge, cgroup. Nothing of it is left when it is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use towline_lab::image;
use towline_sys::cgroup::Cgroup;
use towline_sys::mount;
use towline_sys::testing::{need_program, need_root};

use super::eventually;
use super::program::{Guard, signal, text};
use super::registry::push;

/// Whether everything is there that it takes to run pods on containerd; says what is missing.
pub(crate) fn need_containerd() -> bool {
    need_root()
        && [
            "containerd",
            "ctr",
            "crictl",
            "containerd-shim-runc-v2",
            "runc",
        ]
        .iter()
        .all(|program| need_program(program).is_some())
        && PLUGINS.iter().all(|plugin| need_program(plugin).is_some())
}

/// Where Debian's package puts the plugins.
const PLUGIN_DIR: &str = "/usr/lib/cni";
const PLUGINS: [&str; 3] = [
    "/usr/lib/cni/bridge",
    "/usr/lib/cni/host-local",
    "/usr/lib/cni/loopback",
];

/// A running containerd, and the folder in which everything of it lies.
pub(crate) struct Containerd {
    process: Guard,
    pub(crate) folder: TempDir,
    bridge: String,
    cgroup: String,
}

impl Containerd {
    /// Starts it. Its sandboxes run an image that is pushed to this registry first, because nothing comes from outside.
    pub(crate) fn start(registry: SocketAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pause = image::guest().cmd(["sleep", "infinity"]).build();
        push(&pause, registry, "lib/pause", "1", None);
        let folder = tempfile::Builder::new().prefix("twc").tempdir().unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("twc{}-{number}", std::process::id());
        let at = folder.path().display().to_string();
        std::fs::write(folder.path().join("config.toml"), config(&at, registry)).unwrap();
        std::fs::create_dir(folder.path().join("cni")).unwrap();
        let subnet = (std::process::id().wrapping_add(number)) % 256;
        std::fs::write(
            folder.path().join("cni/10.conflist"),
            network(&at, &name, subnet),
        )
        .unwrap();
        let log = std::fs::File::create(folder.path().join("containerd.log")).unwrap();
        let process = Guard::spawn(
            Command::new("containerd")
                .args(["-c", &format!("{at}/config.toml")])
                .stdout(log.try_clone().unwrap())
                .stderr(Stdio::from(log)),
        );
        let containerd = Self {
            process,
            folder,
            cgroup: format!("/{name}"),
            bridge: name,
        };
        eventually("containerd is ready", 30, || {
            let info = text(&containerd.crictl(&["info"]));
            let ready = info.matches("\"status\": true").count() >= 2;
            ready
                .then_some(())
                .ok_or_else(|| format!("{info}{}", containerd.log()))
        });
        containerd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The socket as a CRI endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// The group below which the pods belong.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("containerd.log")).unwrap_or_default()
    }

    pub(crate) fn crictl(&self, args: &[&str]) -> Output {
        let endpoint = self.endpoint();
        Command::new("crictl")
            .args(["-r", &endpoint, "-i", &endpoint, "-t", "20s"])
            .args(args)
            .output()
            .unwrap()
    }

    pub(crate) fn ctr(&self, args: &[&str]) -> Output {
        Command::new("ctr")
            .args(["-a", self.path("sock").to_str().unwrap()])
            .args(args)
            .output()
            .unwrap()
    }

    /// Takes the place away where it lays out layers, as a node does whose disk is in disorder.
    pub(crate) fn spoil_snapshots(&self) {
        let place = self.path("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
        std::fs::rename(&place, self.path("snapshots.away")).unwrap();
        std::fs::write(place, "").unwrap();
    }

    /// Shims are no children of anyone's: they are found by the socket that each was told.
    fn shims(&self) -> Vec<u32> {
        let socket = self.path("sock").display().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("containerd-shim") && line.contains(&socket)
            })
            .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The runtime's own way first: it gives addresses and namespaces back.
        self.crictl(&["rmp", "-a", "-f"]);
        self.process.end();
        for shim in self.shims() {
            signal(shim, "KILL");
        }
        if let Ok(cgroup) = Cgroup::new(&self.cgroup) {
            cgroup.kill().ok();
            cgroup.remove(Duration::from_secs(5)).ok();
        }
        mount::unmount_under(self.folder.path()).ok();
        Command::new("ip")
            .args(["link", "delete", &self.bridge])
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}

/// Everything below one directory, and nothing that a container in a container may not do.
fn config(at: &str, registry: SocketAddr) -> String {
    format!(
        "version = 3
root = '{at}/root'
state = '{at}/state'
[grpc]
  address = '{at}/sock'
[plugins.'io.containerd.internal.v1.opt']
  path = '{at}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{registry}/lib/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{PLUGIN_DIR}']
    conf_dir = '{at}/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    sandboxer = 'podsandbox'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      Root = '{at}/runc'
"
    )
}

fn network(at: &str, bridge: &str, subnet: u32) -> String {
    assert!(
        bridge.len() < 16,
        "{bridge}: the kernel takes 15 characters"
    );
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "{bridge}", "plugins": [{{"type": "bridge", "bridge": "{bridge}", "isGateway": true,
        "ipam": {{"type": "host-local", "dataDir": "{at}/ipam", "ranges": [[{{"subnet": "10.213.{subnet}.0/24"}}]]}}}}]}}"#
    )
}

/// What a test may look at afterwards: nothing under this folder is mounted, no process and no link is left.
pub(crate) fn assert_nothing_left(containerd: Containerd) {
    let folder = containerd.folder.path().to_owned();
    let (bridge, cgroup) = (containerd.bridge.clone(), containerd.cgroup.clone());
    drop(containerd);
    assert!(mount::mounts_under(&folder).unwrap().is_empty());
    assert!(!folder.exists(), "{} is left", folder.display());
    assert!(!Path::new("/sys/class/net").join(&bridge).exists());
    assert!(!Cgroup::new(&cgroup).unwrap().exists(), "{cgroup} is left");
}
