//! How the shim starts, ends, and is tidied up after.
//!
//! `start DIR`: reads `DIR/sandbox.json`, seals the executable ([`crate::exe`]),
//! forks. The child leaves the caller's session, sets the pod up and serves;
//! the parent waits for it to be ready, prints one line of JSON
//! ([`Ready`](towline_shim_api::Ready)) and ends with 0. When the child fails
//! the parent prints why on standard error and ends with 1.
//!
//! `cleanup DIR`: for a pod whose shim was killed, see [`crate::cleanup`].
//!
//! `init`: process 1 of a shared pid namespace, started by the shim itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::fs::{Mode, OFlags};
use towline_sys::fs::At as _;
use towline_sys::proc::{Fork, fork_single_threaded};

use crate::paths::Paths;
use crate::{cleanup, exe, sandbox, server};

/// Longest answer of the child, in bytes.
const ANSWER_LIMIT: u64 = 64 << 10;

/// Before its answer, a child that is ready writes this.
const READY: u8 = b'+';

/// An error on the way to a shim, in words.
pub(crate) type Startup<T> = Result<T, String>;

pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let text: Vec<_> = args.iter().map(|arg| arg.to_str()).collect();
    let result = match (&text[..], args) {
        ([Some("start"), _], [_, dir]) => start(Path::new(dir), args),
        ([Some("cleanup"), _], [_, dir]) => cleanup::run(Path::new(dir)),
        ([Some("init")], _) => Ok(init()),
        _ => Err("usage: start DIR | cleanup DIR".into()),
    };
    result.unwrap_or_else(|error| {
        say_error(&error);
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stderr, reason = "the launch protocol's failure answer")]
fn say_error(error: &str) {
    eprintln!("{error}");
}

fn start(dir: &Path, args: &[OsString]) -> Startup<ExitCode> {
    let paths = Paths::new(dir).map_err(|error| format!("open {}: {error}", dir.display()))?;
    let config = paths.config()?;
    paths
        .create()
        .map_err(|error| towline_sys::task::chain(&error))?;
    if !exe::is_executed_sealed().map_err(|error| format!("look at the program: {error}"))? {
        let error = exe::execute_sealed(&paths.empty(), args.len(), args);
        return Err(format!("seal the program: {error}"));
    }
    let (reader, writer) = io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
    match fork_single_threaded().map_err(|error| format!("fork: {error}"))? {
        Fork::Parent(_) => {
            drop(writer);
            wait_ready(reader)
        }
        Fork::Child => {
            drop(reader);
            Ok(daemon(paths, config, writer))
        }
    }
}

/// The parent: passes the child's answer on.
fn wait_ready(reader: io::PipeReader) -> Startup<ExitCode> {
    let mut answer = Vec::new();
    reader
        .take(ANSWER_LIMIT)
        .read_to_end(&mut answer)
        .map_err(|error| format!("wait for the shim: {error}"))?;
    match answer.split_first() {
        Some((&READY, line)) => {
            io::stdout()
                .write_all(line)
                .map_err(|error| format!("answer: {error}"))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(_) => Err(String::from_utf8_lossy(&answer).into_owned()),
        None => Err("the shim ended before it was ready".into()),
    }
}

/// The child: becomes the shim.
fn daemon(
    paths: Paths,
    config: towline_shim_api::SandboxConfig,
    mut writer: io::PipeWriter,
) -> ExitCode {
    let shim = detach(&paths)
        .and_then(|lock| sandbox::Sandbox::enter(paths, config, lock))
        .and_then(server::Shim::new);
    match shim {
        Ok(shim) => {
            let mut line = vec![READY];
            // Plain data: it has a JSON form.
            if serde_json::to_writer(&mut line, &shim.ready()).is_err() {
                return ExitCode::FAILURE;
            }
            line.push(b'\n');
            if writer.write_all(&line).is_err() {
                // Whoever started us is gone; it cannot know of this pod's
                // shim but finds its socket. Going on is right.
                tracing::warn!("nobody waited for the shim to be ready");
            }
            drop(writer);
            shim.serve()
        }
        Err(error) => {
            // When the pipe is broken nobody is there to be told.
            drop(writer.write_all(error.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Leaves everything of the caller behind: session, terminal, directory,
/// standard streams. Answers the lock of the state directory.
fn detach(paths: &Paths) -> Startup<File> {
    let step = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    nix::unistd::setsid().map_err(step("start a session"))?;
    nix::unistd::chdir("/").map_err(step("change to /"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    redirect(paths).map_err(|error| towline_sys::task::chain(&error))?;
    rustix::thread::set_name(c"towline-shim").map_err(|error| format!("set the name: {error}"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("become the reaper of orphans: {error}"))?;
    // Lower is better for the one who looks after the others; where it cannot
    // be lowered it stays.
    drop(std::fs::write("/proc/self/oom_score_adj", "-998"));
    let lock = paths
        .lock()
        .map_err(|error| format!("lock the state directory: {error}"))?;
    let lock = lock.ok_or("the pod has a shim already")?;
    abort_children_on_panic();
    trace_to(&paths.trace())?;
    Ok(lock)
}

fn redirect(paths: &Paths) -> Result<(), towline_sys::fs::FsError> {
    let null = PathBuf::from("/dev/null");
    let input = File::open(&null).at("open", &null)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let log =
        rustix::fs::open(paths.log(), flags, Mode::from_raw_mode(0o600)).at("open", paths.log())?;
    rustix::stdio::dup2_stdin(&input).at("redirect to", &null)?;
    rustix::stdio::dup2_stdout(&log).at("redirect to", paths.log())?;
    rustix::stdio::dup2_stderr(&log).at("redirect to", paths.log())
}

/// The OCI library runs our code in children. A panic there must not unwind
/// into this program's loop, in a second process that takes itself for the
/// shim.
fn abort_children_on_panic() {
    let shim = std::process::id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        if std::process::id() != shim {
            std::process::abort();
        }
    }));
}

/// The OCI library says why something failed in its log only, so its errors go
/// to a file that [`crate::oci`] reads.
fn trace_to(path: &Path) -> Startup<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| format!("open {}: {error}", path.display()))?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .without_time()
        .with_writer(File::from(file))
        .finish();
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| format!("set up the log: {error}"))
}

/// Process 1 of a pod's pid namespace: reaps orphans until it is killed.
fn init() -> ExitCode {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        match signals.wait() {
            Ok(Signal::SIGTERM) => return ExitCode::SUCCESS,
            Ok(_) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}
