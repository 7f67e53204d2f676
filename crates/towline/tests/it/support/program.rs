//! Programs that run while a test does, and are ended with it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The binary under test.
pub(crate) fn towline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    command.env_remove("KUBECONFIG").env("RUST_BACKTRACE", "0");
    command
}

/// Starts a part of the program that says what it has to say into a file of this folder.
pub(crate) fn part(folder: &Path, name: &str, args: &[&str]) -> Guard {
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    Guard::spawn(
        towline()
            .arg(name)
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log)),
    )
}

/// A child that is killed when dropped.
pub(crate) struct Guard(pub(crate) Child);

impl Guard {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("start {command:?}: {error}")),
        )
    }

    /// Sends SIGINT and waits for the end, at most so long.
    pub(crate) fn interrupt(&mut self, patience: Duration) -> std::process::ExitStatus {
        signal(self.0.id(), "INT");
        super::eventually("the program ends after SIGINT", patience.as_secs(), || {
            self.0
                .try_wait()
                .unwrap()
                .ok_or_else(|| "still running".to_owned())
        })
    }
}

impl Guard {
    /// Ends it with SIGINT, after 10 s with SIGKILL.
    pub(crate) fn end(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            // SIGINT first: a node takes its pods, mounts and namespaces with it.
            signal(self.0.id(), "INT");
            for _ in 0..100 {
                if !self.0.try_wait().is_ok_and(|status| status.is_none()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .ok();
}

/// Output as text, for assertions.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A free TCP port of 127.0.0.1, for programs that cannot take port 0.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
