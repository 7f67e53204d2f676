//! The real containerd as the runtime of a lab's node: with directories, bridge, cgroup, name server and authorities of its own.
//!
//! It asks for names where `/etc/resolv.conf` says, so it runs in a mount namespace in which that file is another one. Mounts made
//! outside still come in, since the kubelet makes the pods' volumes there.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use towline_sys::cgroup::Cgroup;
use towline_sys::{fs, mount};

use super::LabError;

/// What must be on `PATH`.
const PROGRAMS: [&str; 6] = [
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "unshare",
    "mount",
    "ip",
];
/// Where packages put network plugins.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Programs that are missing for a node on containerd; none where all is there.
pub fn missing() -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let absent = |program: &str| !folders.iter().any(|folder| folder.join(program).is_file());
    let mut missing: Vec<String> = PROGRAMS
        .into_iter()
        .filter(|program| absent(program))
        .map(str::to_owned)
        .collect();
    if plugins().is_none() {
        missing.push("the CNI plugins bridge, host-local and loopback".to_owned());
    }
    missing
}

fn plugins() -> Option<&'static str> {
    PLUGINS.into_iter().find(|folder| {
        ["bridge", "host-local", "loopback"]
            .iter()
            .all(|plugin| Path::new(folder).join(plugin).is_file())
    })
}

/// A containerd that runs. It has to be stopped: dropping it leaves the shims of its pods.
#[derive(Debug)]
pub(super) struct Containerd {
    process: Child,
    home: PathBuf,
    name: String,
}

/// What it is told.
pub(super) struct Told<'a> {
    /// Everything of it lies below this folder.
    pub(super) home: &'a Path,
    /// The registry that will have the image of the sandboxes.
    pub(super) registry: SocketAddr,
    /// The name server, which listens on port 53.
    pub(super) resolver: Ipv4Addr,
    /// The authorities to trust, PEM.
    pub(super) authority: &'a str,
    /// Trees of `hosts.toml`.
    pub(super) trees: &'a Path,
}

/// The image of the sandboxes in that registry.
pub(super) const PAUSE: (&str, &str) = ("public/pause", "1");

/// A port that nobody has just now.
pub(super) fn free_port() -> Result<SocketAddr, LabError> {
    let mut last = None;
    for _ in 0..20 {
        // Below the ports that the kernel gives away on its own (net.ipv4.ip_local_port_range begins at 32768): between this and the
        // registry's own bind nothing else takes it but somebody who asks for it by number.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(20_000..32_000)));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    Err(LabError::Io {
        what: "find a free port between 20000 and 32000".to_owned(),
        source: last.unwrap_or_else(|| ErrorKind::AddrInUse.into()),
    })
}

impl Containerd {
    pub(super) async fn start(told: Told<'_>) -> Result<Self, LabError> {
        let name = format!("twl{:08x}", fastrand::u32(..));
        let home = told.home.to_owned();
        for folder in ["", "cni", "run"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let write = |file: &str, text: &str| fs::write_atomic(home.join(file), text.as_bytes());
        write("config.toml", &config(&told))?;
        write("cni/10.conflist", &network(&home, &name))?;
        write("resolv.conf", &format!("nameserver {}\n", told.resolver))?;
        write("ca.pem", told.authority)?;
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| LabError::Io { what, source }
        };
        let log = std::fs::File::create(home.join("containerd.log"));
        let log = log.map_err(failed("make containerd's log"))?;
        let again = log.try_clone().map_err(failed("make containerd's log"))?;
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sh", "-ec"])
            .arg("mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"")
            .arg("sh")
            .arg(home.join("resolv.conf"))
            .args(["containerd", "-c"])
            .arg(home.join("config.toml"))
            .env("SSL_CERT_FILE", home.join("ca.pem"))
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("start containerd"))?;
        let containerd = Self {
            process,
            home,
            name,
        };
        containerd.listens().await?;
        Ok(containerd)
    }

    /// Its socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.home.join("run/sock")
    }

    /// The group below which its pods belong.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    async fn listens(&self) -> Result<(), LabError> {
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.home.join("containerd.log"));
                let log = log.unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(LabError::NotYet {
                    what: "containerd listens".to_owned(),
                    seconds: PATIENCE.as_secs(),
                    last: last.join(" | "),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends it, its shims and its pods, and takes its mounts and its bridge away.
    pub(super) async fn stop(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "containerd cannot be ended");
        }
        for shim in self.shims() {
            let ended = Command::new("kill")
                .args(["-KILL", &shim.to_string()])
                .stderr(Stdio::null())
                .status();
            // One that is gone is as good.
            drop(ended.await);
        }
        if let Ok(group) = Cgroup::new(&self.cgroup()) {
            drop(group.kill());
            if let Err(error) = group.remove(Duration::from_secs(10)) {
                tracing::warn!(%error, "the cgroup of containerd's pods stays");
            }
        }
        if let Err(error) = mount::unmount_under(&self.home) {
            tracing::warn!(%error, "mounts of containerd stay");
        }
        let bridge = Command::new("ip")
            .args(["link", "delete", &self.name])
            .stderr(Stdio::null())
            .status();
        // Without a pod that had an address there is none.
        drop(bridge.await);
    }

    /// Shims are no children of anyone's: they are found by the socket that each was told.
    fn shims(&self) -> Vec<u32> {
        let socket = self.socket().display().to_string();
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("containerd-shim") && line.contains(&socket)
            })
            .collect()
    }
}

/// Everything below one directory, and nothing that a container in a container may not do.
fn config(told: &Told<'_>) -> String {
    let at = told.home.display();
    let (registry, (repository, tag)) = (told.registry, PAUSE);
    let trees = told.trees.display();
    let plugins = plugins().unwrap_or_default();
    format!(
        "version = 3
root = '{at}/root'
state = '{at}/state'
[grpc]
  address = '{at}/run/sock'
[plugins.'io.containerd.internal.v1.opt']
  path = '{at}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  image_pull_progress_timeout = '8s'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{trees}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{registry}/{repository}:{tag}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{plugins}']
    conf_dir = '{at}/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    sandboxer = 'podsandbox'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      Root = '{at}/runc'
"
    )
}

fn network(home: &Path, bridge: &str) -> String {
    let at = home.display();
    let subnet = fastrand::u8(..);
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "{bridge}", "plugins": [{{"type": "bridge", "bridge": "{bridge}", "isGateway": true,
        "ipam": {{"type": "host-local", "dataDir": "{at}/ipam", "ranges": [[{{"subnet": "10.214.{subnet}.0/24"}}]]}}}}]}}"#
    )
}
