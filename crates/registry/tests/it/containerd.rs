//! containerd without its kubelet's side: content only, so that no snapshotter is needed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::process::Command;
use towline_sys::proc::ChildGuard;
use towline_sys::testing::{need_program, need_root};

/// What is not needed, and where it would write.
const CONFIG: &str = "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri']\n\
    [plugins.'io.containerd.internal.v1.opt']\npath = 'OPT'\n";

/// A containerd that runs in a folder of its own.
pub(crate) struct Containerd {
    ctr: PathBuf,
    child: ChildGuard,
    folder: tempfile::TempDir,
}

impl Containerd {
    /// Starts one, if the programs and the rights for it are there.
    pub(crate) async fn start() -> Option<Self> {
        let (containerd, ctr) = (need_program("containerd")?, need_program("ctr")?);
        if !need_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("config.toml"), CONFIG.replace("OPT", &path("opt"))).unwrap();
        let mut command = std::process::Command::new(containerd);
        for (option, name) in [
            ("--config", "config.toml"),
            ("--root", "root"),
            ("--state", "state"),
            ("--address", "sock"),
        ] {
            command.args([option, &path(name)]);
        }
        command.stderr(std::fs::File::create(path("log")).unwrap());
        let child = ChildGuard::spawn(&mut command).unwrap();
        let this = Self { ctr, child, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !this.ask(&["version"]).await.0 {
            let log = std::fs::read_to_string(this.folder.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "containerd is not ready: {log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(this)
    }

    /// A folder for what it is told.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Asks it by `ctr`; whether that ended well, and all that it said.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(&self.ctr);
        command
            .arg("--address")
            .arg(self.folder.path().join("sock"));
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = output.await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.success(), said)
    }

    /// The same where it must end well.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let (ended_well, said) = self.ask(arguments).await;
        assert!(ended_well, "{arguments:?}: {said}");
        said
    }

    pub(crate) fn stop(mut self) {
        self.child.terminate(Duration::from_secs(20)).unwrap();
    }
}
