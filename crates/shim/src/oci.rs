//! The calls into the OCI runtime library.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use libcgroups::common::{CgroupConfig, CgroupManager as _, ControllerOpt};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;
use towline_shim_api::{Exec, Failure, FailureCode};
use towline_sys::fs;
use towline_sys::task::chain;

use crate::executor::Program;
use crate::paths::Paths;
use crate::spec::ContainerSpec;
use crate::watchdog::Watchdog;
use crate::{fail, internal};

/// Most of the library's words that go into an answer, in bytes.
const WORDS_LIMIT: u64 = 4 << 10;

/// Our ends of the pipes that a process writes to; reading does not block.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) stdout: File,
    pub(crate) stderr: File,
}

/// The ends that are given to the process.
struct Inputs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn pipes() -> io::Result<(Outputs, Inputs)> {
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    for reader in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(reader, true)?;
    }
    let ours = Outputs {
        stdout: File::from(OwnedFd::from(stdout)),
        stderr: File::from(OwnedFd::from(stderr)),
    };
    let theirs = Inputs {
        stdin: File::open("/dev/null")?.into(),
        stdout: stdout_writer.into(),
        stderr: stderr_writer.into(),
    };
    Ok((ours, theirs))
}

/// Longer than any call takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The library, as it is called for one pod.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    pub(crate) paths: Paths,
    /// How long a call may take.
    patience: Duration,
}

impl Library {
    pub(crate) fn new(paths: Paths, patience_ms: Option<u64>) -> Self {
        Self {
            paths,
            patience: patience_ms.map_or(PATIENCE, Duration::from_millis),
        }
    }

    /// Makes a container up to the point where its init waits to be started.
    /// Answers that process's id and the pipes.
    pub(crate) fn create(&self, id: &str, spec: &ContainerSpec) -> Result<(i32, Outputs), Failure> {
        let bundle = self.paths.bundles().join(id);
        write_json(&bundle, "config.json", &spec.json)?;
        let (ours, theirs) = pipes().map_err(|error| internal(&error))?;
        let build = || -> Result<Container, LibcontainerError> {
            ContainerBuilder::new(id.to_owned(), SyscallType::default())
                .with_executor(Program::default())
                .with_root_path(self.paths.oci())?
                .with_stdin(theirs.stdin)
                .with_stdout(theirs.stdout)
                .with_stderr(theirs.stderr)
                .as_init(&bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()
        };
        let container = self.call(|| with_oom_score(spec.oom_score_adj, build))?;
        let pid = container
            .pid()
            .ok_or_else(|| fail(FailureCode::Internal, "the container has no process"))?;
        Ok((pid.as_raw(), ours))
    }

    /// Lets a created container's init go on to its program.
    pub(crate) fn start(&self, id: &str) -> Result<(), Failure> {
        self.call(|| {
            Container::load(self.paths.oci().join(id))?.start()?;
            Ok(())
        })
    }

    /// Starts a command in a running container.
    pub(crate) fn exec(
        &self,
        spec: &ContainerSpec,
        exec: &Exec,
    ) -> Result<(i32, Outputs), Failure> {
        let bundle = self.paths.bundles().join(&exec.id);
        write_json(&bundle, "process.json", &spec.exec_process(exec))?;
        let (ours, theirs) = pipes().map_err(|error| internal(&error))?;
        let build = || {
            ContainerBuilder::new(exec.id.clone(), SyscallType::default())
                .with_executor(Program::default())
                .with_root_path(self.paths.oci())?
                .with_stdin(theirs.stdin)
                .with_stdout(theirs.stdout)
                .with_stderr(theirs.stderr)
                .as_tenant()
                .with_detach(true)
                .with_process(Some(bundle.join("process.json")))
                .build()
        };
        let started = self.call(|| with_oom_score(spec.oom_score_adj, build));
        remove_notify_sockets(&self.paths.oci().join(&exec.id));
        Ok((started?.as_raw(), ours))
    }

    /// Calls the library; of a failure, what it logged is the only full account.
    fn call<T>(&self, body: impl FnOnce() -> Result<T, LibcontainerError>) -> Result<T, Failure> {
        let trace = self.paths.trace();
        // The writer appends, so an emptied file starts at the beginning again.
        drop(File::options().write(true).truncate(true).open(&trace));
        // Without the guard everything else still works.
        let _guard = Watchdog::start(self.patience);
        // It leaves some sockets open when it fails.
        towline_sys::proc::close_leaks_of_failure(body).map_err(|error| {
            let words = fs::read_bounded(&trace, WORDS_LIMIT).unwrap_or_default();
            explain(&chain(&error), &String::from_utf8_lossy(&words))
        })
    }
}

/// The library leaves the socket of each exec behind.
fn remove_notify_sockets(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("tenant-notify-")
        {
            // What stays is removed with the directory.
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Changes the limits of a container's cgroup.
pub(crate) fn update(cgroup: &str, id: &str, resources: Value) -> Result<(), Failure> {
    let resources = serde_json::from_value(resources)
        .map_err(|error| fail(FailureCode::BadRequest, format!("resources: {error}")))?;
    let manager = libcgroups::common::create_cgroup_manager(CgroupConfig {
        cgroup_path: cgroup.into(),
        systemd_cgroup: false,
        container_name: id.into(),
    })
    .map_err(|error| internal(&error))?;
    let options = ControllerOpt {
        resources: &resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&options).map_err(|error| internal(&error))
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<(), Failure> {
    let json = serde_json::to_vec(value).map_err(|error| internal(&error))?;
    fs::create_dir_all_mode(dir, 0o700).map_err(|error| internal(&error))?;
    // Not durable: it is read once, now (and by execs of this same process).
    std::fs::write(dir.join(name), json)
        .map_err(|error| internal(&fs::FsError::new("write", dir.join(name), error)))
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Calls `body` while this process has the score that its children are to
/// inherit. Lower than allowed becomes the lowest that is allowed, which is
/// the present one.
fn with_oom_score<T>(wanted: i32, body: impl FnOnce() -> T) -> T {
    let before = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
    // A refusal leaves the present score, which is what is wanted then.
    drop(std::fs::write(OOM_SCORE, wanted.to_string()));
    let result = body();
    drop(std::fs::write(OOM_SCORE, before.trim()));
    result
}

/// The failure out of the library's error and its log.
fn explain(error: &str, words: &str) -> Failure {
    if let Some(text) = exec_text(error) {
        let missing = ["not found in $PATH", "no such file", "not a directory"];
        let code = if missing.iter().any(|end| text.contains(end)) {
            FailureCode::ExecutableNotFound
        } else {
            FailureCode::ExecutableUnusable
        };
        return fail(code, text);
    }
    if error.contains(FOREIGN) {
        // The kernel alone knows, and says so only when it is executed.
        let text = error.trim_matches(['\0', '\n', ' ']);
        return fail(FailureCode::ExecutableUnusable, text);
    }
    let first = words.lines().find(|line| !line.trim().is_empty());
    let code = match first {
        Some(line) if line.contains("to chdir") || line.contains("verify cwd") => {
            FailureCode::WorkingDirectory
        }
        _ => FailureCode::Internal,
    };
    match first {
        Some(first) => fail(code, format!("{}: {error}", first.trim())),
        None => fail(code, error),
    }
}

/// How a program for another machine is refused.
const FOREIGN: &str = "exec format error";

/// Our executor's own words within the library's.
fn exec_text(error: &str) -> Option<&str> {
    let start = error.find("exec: \"")?;
    Some(error[start..].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_by_our_own_words() {
        let cases = [
            (
                "x: exec: \"a\": executable file not found in $PATH",
                "",
                FailureCode::ExecutableNotFound,
            ),
            (
                "x: exec: \"/a\": permission denied",
                "",
                FailureCode::ExecutableUnusable,
            ),
            (
                "failed to unix syscall",
                "failed to chdir e=ENOENT\nmore",
                FailureCode::WorkingDirectory,
            ),
            ("failed", "\nmount x: EPERM\n", FailureCode::Internal),
            (
                "exec /x: exec format error\0\0",
                "",
                FailureCode::ExecutableUnusable,
            ),
        ];
        for (error, words, code) in cases {
            let failure = explain(error, words);
            assert_eq!(failure.code, code, "{error}");
        }
        assert_eq!(explain("failed", "\nmount x\n").message, "mount x: failed");
    }

    #[test]
    fn the_oom_score_is_put_back() {
        let read = || std::fs::read_to_string(OOM_SCORE).unwrap();
        let before = read();
        let inside = with_oom_score(777, read);
        assert_eq!(inside.trim(), "777");
        assert_eq!(read(), before);
    }
}
