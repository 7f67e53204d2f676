//! One container: its state, its pipes and its log.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use towline_shim_api::{ContainerState, Create, Exit, Failure, Status, Stream, VERSION};
use towline_sys::cgroup::Cgroup;
use towline_sys::proc::send_signal;

use crate::log::{Log, Splitter, timestamp};
use crate::oci::Library;
use crate::paths::Paths;
use crate::spec::ContainerSpec;
use crate::{internal, stats};

/// Bytes that are read at once from a pipe.
pub(crate) const CHUNK: usize = 64 << 10;

/// How long the pipes of a container that has ended may stay open (a process
/// elsewhere that got hold of them) before its log is closed.
const DRAIN: Duration = Duration::from_secs(1);

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) state: ContainerState,
    pub(crate) spec: ContainerSpec,
    cgroup: Cgroup,
    log: Option<Log>,
    stdout: Pipe,
    stderr: Pipe,
    /// Its init has ended; what it wrote is still read, until then.
    ending: Option<(Exit, Instant)>,
}

/// Our end of an output, `None` once it has ended.
#[derive(Debug)]
struct Pipe {
    file: Option<File>,
    splitter: Splitter,
}

impl Container {
    /// Makes it; on failure nothing of it is left.
    pub(crate) fn create(library: &Library, create: &Create) -> Result<Self, Failure> {
        let spec = ContainerSpec::load(&create.bundle)?;
        let cgroup = Cgroup::new(&spec.cgroup).map_err(|error| internal(&error))?;
        let log = match &create.log_path {
            Some(path) => {
                let error = |source| towline_sys::fs::FsError::new("open the log", path, source);
                Some(Log::open(path).map_err(|source| internal(&error(source)))?)
            }
            None => None,
        };
        spec.make_working_directory();
        let made = library
            .create(&create.id, &spec)
            .and_then(|(pid, outputs)| {
                let state = ContainerState {
                    version: VERSION,
                    id: create.id.clone(),
                    status: Status::Created,
                    pid,
                    bundle: create.bundle.clone(),
                    log_path: create.log_path.clone(),
                    cgroup: spec.cgroup.clone(),
                    created_at: crate::now(),
                    started_at: None,
                    exit: None,
                };
                library
                    .paths
                    .save(&state)
                    .map_err(|error| crate::fail(towline_shim_api::FailureCode::Internal, error))?;
                Ok((state, outputs))
            });
        match made {
            Ok((state, outputs)) => Ok(Self {
                state,
                spec,
                cgroup,
                log,
                stdout: Pipe::new(outputs.stdout, Stream::Stdout),
                stderr: Pipe::new(outputs.stderr, Stream::Stderr),
                ending: None,
            }),
            Err(failure) => {
                // The failure is what matters; remains are logged.
                remove(&library.paths, &create.id, &cgroup);
                Err(failure)
            }
        }
    }

    /// Lets its program run.
    pub(crate) fn start(&mut self, library: &Library) -> Result<(), Failure> {
        library.start(&self.state.id)?;
        self.state.status = Status::Running;
        self.state.started_at = Some(crate::now());
        self.save(&library.paths);
        Ok(())
    }

    /// Whether its init process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.ending.is_none() && self.state.status != Status::Exited
    }

    /// Signals its init process or all its processes, while the init lives.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        if !self.is_alive() {
            return Ok(());
        }
        let pids = if all {
            self.cgroup.processes().map_err(|error| internal(&error))?
        } else {
            vec![self.state.pid]
        };
        for pid in pids {
            send_signal(pid, signal).map_err(|error| internal(&error))?;
        }
        Ok(())
    }

    /// Kills everything in it.
    pub(crate) fn kill_all(&self) {
        if let Err(failure) = self.kill(nix::libc::SIGKILL, false) {
            tracing::error!(id = self.state.id, %failure, "cannot kill the container");
        }
        if let Err(error) = self.cgroup.kill() {
            tracing::error!(id = self.state.id, %error, "cannot kill the container's processes");
        }
    }

    /// Its init process has ended: with the code, or by the signal.
    pub(crate) fn ended(&mut self, code: i32, signal: Option<i32>) {
        let exit = Exit {
            code,
            signal,
            oom_killed: stats::oom_kills(&self.cgroup) > 0,
            finished_at: crate::now(),
        };
        self.ending = Some((exit, Instant::now() + DRAIN));
        // In a shared pid namespace its other processes live on.
        if let Err(error) = self.cgroup.kill() {
            tracing::error!(id = self.state.id, %error, "cannot kill what the container left");
        }
    }

    /// When its log is closed at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref().map(|(_, until)| *until)
    }

    /// Makes it `Exited` once all that it wrote is in the log.
    pub(crate) fn settle(&mut self, paths: &Paths) {
        let Some((exit, until)) = self.ending.take() else {
            return;
        };
        let closed = self.stdout.file.is_none() && self.stderr.file.is_none();
        if !closed && Instant::now() < until {
            self.ending = Some((exit, until));
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.close(stream);
        }
        self.state.status = Status::Exited;
        self.state.exit = Some(exit);
        self.save(paths);
    }

    fn save(&self, paths: &Paths) {
        // The memory's state is right; the file serves only when we are gone.
        if let Err(error) = paths.save(&self.state) {
            tracing::error!(
                id = self.state.id,
                error,
                "cannot save the container's state"
            );
        }
    }

    fn pipe(&mut self, stream: Stream) -> &mut Pipe {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// The pipes to be looked at.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = (Stream, &File)> {
        [
            (Stream::Stdout, &self.stdout),
            (Stream::Stderr, &self.stderr),
        ]
        .into_iter()
        .filter_map(|(stream, pipe)| pipe.file.as_ref().map(|file| (stream, file)))
    }

    /// Reads one chunk of a pipe into the log.
    pub(crate) fn read(&mut self, stream: Stream) {
        let pipe = self.pipe(stream);
        let Some(file) = &mut pipe.file else {
            return;
        };
        let mut chunk = vec![0; CHUNK];
        match read_some(file, &mut chunk) {
            Some(0) => self.close(stream),
            Some(length) => {
                let mut lines = Vec::with_capacity(length + 64);
                pipe.splitter
                    .push(&chunk[..length], &timestamp(), &mut lines);
                self.append(&lines);
            }
            None => {}
        }
    }

    fn close(&mut self, stream: Stream) {
        let pipe = self.pipe(stream);
        if pipe.file.take().is_some() {
            let mut lines = Vec::new();
            pipe.splitter.finish(&timestamp(), &mut lines);
            self.append(&lines);
        }
    }

    fn append(&mut self, lines: &[u8]) {
        if let Some(log) = &mut self.log
            && !lines.is_empty()
        {
            log.append(lines);
        }
    }

    /// Opens its log file anew.
    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Log::reopen)
    }

    /// What it uses.
    pub(crate) fn stats(&self) -> towline_shim_api::ContainerStats {
        stats::read(&self.cgroup)
    }

    /// Removes what is left of one that has ended.
    pub(crate) fn remove(&self, paths: &Paths) {
        remove(paths, &self.state.id, &self.cgroup);
    }
}

impl Pipe {
    fn new(file: File, stream: Stream) -> Self {
        Self {
            file: Some(file),
            splitter: Splitter::new(stream),
        }
    }
}

/// Reads what is there: `Some(0)` at the end, `None` when nothing is there. A
/// pipe that cannot be read has ended.
pub(crate) fn read_some(file: &mut File, chunk: &mut [u8]) -> Option<usize> {
    match file.read(chunk) {
        Ok(length) => Some(length),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => None,
            _ => Some(0),
        },
    }
}

fn remove(paths: &Paths, id: &str, cgroup: &Cgroup) {
    let gone = || {
        if cgroup.exists() {
            cgroup.kill()?;
            cgroup.remove(crate::cleanup::KILL_WAIT)?;
        }
        paths.forget(id)
    };
    if let Err(error) = gone() {
        tracing::error!(
            id,
            error = towline_sys::task::chain(&error),
            "something of the container is left"
        );
    }
}
