//! A pod for a test: a state directory, a network namespace, a shim, and
//! bundles with busybox in them. Everything is gone when it is dropped.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use towline_shim_api::{
    Client, ContainerState, Create, Exec, ExecResult, IpcMode, Network, PidMode, Ready,
    SandboxConfig, Status, VERSION,
};
use towline_sys::cgroup::Cgroup;
use towline_sys::ns::NetNs;
use towline_sys::testing::{need_program, need_root};

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_towline-shim");

/// Longer than anything takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a test may change of its pod.
pub(crate) struct Options {
    pub(crate) pid: PidMode,
    pub(crate) ipc: IpcMode,
    pub(crate) host_network: bool,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) patience_ms: Option<u64>,
    /// The program, and what is put before it on the command line.
    pub(crate) shim: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pid: PidMode::Container,
            ipc: IpcMode::Pod,
            host_network: false,
            sysctls: BTreeMap::new(),
            patience_ms: None,
            shim: vec![SHIM.into()],
        }
    }
}

pub(crate) struct Pod {
    pub(crate) dir: TempDir,
    pub(crate) cgroup: String,
    pub(crate) ready: Ready,
    netns: Option<NetNs>,
    busybox: PathBuf,
    pid: PidMode,
}

impl Pod {
    /// `None` (and a word on standard error) when the test must be skipped.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Option<Self> {
        if !need_root() {
            return None;
        }
        let busybox = need_program("busybox")?;
        let dir = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let cgroup = format!("/towline-shim-test-{id}");
        let netns = NetNs::create(dir.path().join("netns")).unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let network = if options.host_network {
            Network::Host
        } else {
            Network::Path(netns.path().into())
        };
        let config = SandboxConfig {
            version: VERSION,
            id,
            hostname: (!options.host_network).then(|| "pod-of-test".into()),
            network,
            ipc: options.ipc,
            pid: options.pid,
            cgroup: Some(cgroup.clone()),
            sysctls: options.sysctls,
            patience_ms: options.patience_ms,
            socket: None,
        };
        let json = serde_json::to_vec(&config).unwrap();
        std::fs::write(state.join("sandbox.json"), json).unwrap();
        let output = launch_with(&options.shim, "start", &state);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        Some(Self {
            ready: serde_json::from_slice(&output.stdout).unwrap(),
            dir,
            cgroup,
            netns: Some(netns),
            busybox,
            pid: options.pid,
        })
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.ready.socket).unwrap()
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// The lines of a log without their times: `stdout F text`.
    pub(crate) fn log(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path(id)).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    /// A spec that runs `args`, in a root file system with busybox.
    pub(crate) fn spec(&self, id: &str, args: &[&str]) -> Value {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
        let pod = &self.ready.namespaces;
        for (kind, path) in [
            ("network", &pod.network),
            ("ipc", &pod.ipc),
            ("uts", &pod.uts),
        ] {
            if let Some(path) = path {
                namespaces.push(json!({"type": kind, "path": path}));
            }
        }
        match &pod.pid {
            Some(path) => namespaces.push(json!({"type": "pid", "path": path})),
            None if self.pid == PidMode::Host => {}
            None => namespaces.push(json!({"type": "pid"})),
        }
        let capabilities = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_KILL",
            "CAP_SETUID",
            "CAP_SETGID",
        ];
        let flags = ["nosuid", "noexec", "nodev"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin", "HOME=/home"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
                "noNewPrivileges": true,
            },
            "root": {"path": self.rootfs(id)},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": flags},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            ],
            "linux": {
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "namespaces": namespaces,
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/sys"],
                "resources": {},
            },
        })
    }

    /// The root file system of a container.
    pub(crate) fn rootfs(&self, id: &str) -> PathBuf {
        let root = self.dir.path().join("bundles").join(id).join("rootfs");
        if !root.exists() {
            for dir in ["bin", "dev", "proc", "tmp", "home"] {
                std::fs::create_dir_all(root.join(dir)).unwrap();
            }
            std::fs::copy(&self.busybox, root.join("bin/busybox")).unwrap();
            for name in [
                "sh", "sleep", "cat", "echo", "id", "env", "ps", "dd", "yes", "kill", "hostname",
                "ls", "true", "head", "seq", "readlink", "pwd", "ipcs", "setsid",
            ] {
                symlink("busybox", root.join("bin").join(name)).unwrap();
            }
        }
        root
    }

    /// Writes the bundle of a spec; answers what to create.
    pub(crate) fn bundle(&self, id: &str, spec: &Value) -> Create {
        let bundle = self.dir.path().join("bundles").join(id);
        std::fs::create_dir_all(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        Create {
            id: id.into(),
            bundle,
            log_path: Some(self.log_path(id)),
        }
    }

    /// Creates and starts a container.
    pub(crate) fn run(&self, id: &str, args: &[&str]) -> ContainerState {
        self.run_spec(id, &self.spec(id, args))
    }

    pub(crate) fn run_spec(&self, id: &str, spec: &Value) -> ContainerState {
        let mut client = self.client();
        let state = client.create(self.bundle(id, spec)).unwrap();
        assert_eq!(state.status, Status::Created);
        client.start(id).unwrap()
    }

    /// Runs a container to its end.
    pub(crate) fn run_to_end(&self, id: &str, args: &[&str]) -> ContainerState {
        self.run(id, args);
        self.wait(id)
    }

    pub(crate) fn wait(&self, id: &str) -> ContainerState {
        let state = self.client().wait(id, Some(LONG)).unwrap();
        assert_eq!(state.status, Status::Exited);
        state
    }

    pub(crate) fn exec(&self, id: &str, args: &[&str]) -> ExecResult {
        self.client().exec(exec(id, args)).unwrap()
    }

    /// Processes of all the pod's containers.
    pub(crate) fn processes(&self) -> Vec<i32> {
        Cgroup::new(&self.cgroup).unwrap().processes().unwrap()
    }

    /// Shuts the pod down, and checks that nothing of it is left.
    pub(crate) fn shut_down(self) {
        self.client().shutdown(Duration::ZERO).unwrap();
        let shim = format!("/proc/{}", self.ready.pid);
        poll(|| !Path::new(&shim).exists() || is_zombie(self.ready.pid));
        assert!(!Cgroup::new(&self.cgroup).unwrap().exists());
        assert!(!self.ready.socket.exists());
        let names = ["oci", "bundles"].map(|name| self.state_dir().join(name));
        assert!(names.iter().all(|path| !path.exists()));
        let below = towline_sys::mount::mounts_under(self.dir.path()).unwrap();
        assert_eq!(below, [self.netns.as_ref().unwrap().path()]);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Ok(mut client) = Client::connect(&self.ready.socket) {
            drop(client.shutdown(Duration::ZERO));
        }
        if let Ok(cgroup) = Cgroup::new(&self.cgroup) {
            drop(cgroup.kill());
            drop(cgroup.remove(LONG));
        }
        if let Some(netns) = self.netns.take() {
            drop(netns.remove());
        }
    }
}

pub(crate) fn exec(id: &str, args: &[&str]) -> Exec {
    Exec {
        id: id.into(),
        args: args.iter().map(|&arg| arg.into()).collect(),
        timeout_ms: Some(60_000),
        ..Exec::default()
    }
}

pub(crate) fn launch(command: &str, state: &Path) -> Output {
    launch_with(&[SHIM.into()], command, state)
}

fn launch_with(program: &[PathBuf], command: &str, state: &Path) -> Output {
    Command::new(&program[0])
        .args(&program[1..])
        .arg(command)
        .arg(state)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Waits until something is so.
pub(crate) fn poll(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < until, "it never came to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}
