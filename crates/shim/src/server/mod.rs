//! The shim's loop: signals, connections, pipes and deadlines, one after the
//! other, in one thread.

mod request;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitOptions;
use towline_shim_api::{Ready, Response, SOCKET_FILE, Status, Stream, VERSION};
use towline_sys::fs;
use towline_sys::proc::send_signal;

use crate::cleanup;
use crate::connection::{Connection, Pending};
use crate::container::Container;
use crate::exec::Running;
use crate::launch::Startup;
use crate::sandbox::Sandbox;

/// Most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 128;

/// Time between TERM and KILL when the shim itself gets TERM.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// How long after KILL the shutdown waits for containers to end before it
/// gives them up.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a ready descriptor is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Connection(u64),
    Log(String, Stream),
    Exec(i32, Stream),
}

/// A shutdown that has begun.
#[derive(Debug, Clone, Copy)]
struct Shutdown {
    kill_at: Instant,
    killed: bool,
}

/// The shim.
#[derive(Debug)]
pub(crate) struct Shim {
    sandbox: Sandbox,
    socket: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    containers: BTreeMap<String, Container>,
    execs: Vec<Running>,
    shutdown: Option<Shutdown>,
}

impl Shim {
    /// Takes the signals and binds the socket.
    pub(crate) fn new(sandbox: Sandbox) -> Startup<Self> {
        let socket = sandbox
            .config
            .socket
            .clone()
            .unwrap_or_else(|| sandbox.library.paths.root.join(SOCKET_FILE));
        let listener =
            bind(&socket).map_err(|error| format!("listen on {}: {error}", socket.display()))?;
        let mut signals = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ] {
            signals.add(signal);
        }
        let signals = signals
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map_err(|error| format!("take the signals: {error}"))?;
        Ok(Self {
            sandbox,
            socket,
            listener,
            signals,
            connections: BTreeMap::new(),
            next_connection: 0,
            containers: BTreeMap::new(),
            execs: Vec::new(),
            shutdown: None,
        })
    }

    /// What whoever started it is told.
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            version: VERSION,
            pid: std::process::id().cast_signed(),
            socket: self.socket.clone(),
            namespaces: self.sandbox.namespaces.clone(),
        }
    }

    /// Serves until it is told to shut down.
    pub(crate) fn serve(mut self) -> ExitCode {
        loop {
            self.reap();
            self.settle();
            self.flush();
            if self.is_over() {
                return self.end();
            }
            match self.poll() {
                Ok(ready) => ready.into_iter().for_each(|source| self.handle(source)),
                Err(error) => {
                    // Not expected ever; without it there is nothing to do.
                    tracing::error!(%error, "poll failed");
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    fn poll(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.connections.len() < MAX_CONNECTIONS {
            sources.push(Source::Listener);
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for (&id, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            if connection.is_idle() {
                flags |= PollFlags::IN;
            }
            if connection.has_output() {
                flags |= PollFlags::OUT;
            }
            // Without flags it still tells that the client has gone.
            sources.push(Source::Connection(id));
            fds.push(PollFd::new(connection.stream(), flags));
        }
        for (id, container) in &self.containers {
            for (stream, file) in container.pipes() {
                sources.push(Source::Log(id.clone(), stream));
                fds.push(PollFd::new(file, PollFlags::IN));
            }
        }
        for exec in &self.execs {
            let full = exec
                .connection
                .and_then(|id| self.connections.get(&id))
                .is_some_and(Connection::is_full);
            if full {
                continue;
            }
            for (stream, file) in exec.pipes() {
                sources.push(Source::Exec(exec.pid, stream));
                fds.push(PollFd::new(file, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let ready = sources.into_iter().zip(ready);
        Ok(ready
            .filter_map(|(source, ready)| ready.then_some(source))
            .collect())
    }

    /// Time to the next deadline.
    fn timeout(&self) -> Option<Timespec> {
        let waits = self
            .connections
            .values()
            .filter_map(|connection| match connection.pending {
                Some(Pending::Wait { deadline, .. }) => deadline,
                _ => None,
            });
        let next = waits
            .chain(self.containers.values().filter_map(Container::deadline))
            .chain(self.execs.iter().filter_map(Running::deadline))
            .chain(self.shutdown.map(|shutdown| shutdown.kill_at))
            .min()?;
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: waking a moment early would be a busy loop.
        let left = left + Duration::from_millis(1);
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        })
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Listener => self.accept(),
            Source::Connection(id) => self.converse(id),
            Source::Log(id, stream) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.read(stream);
                }
            }
            Source::Exec(pid, stream) => {
                let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) else {
                    return;
                };
                let response = exec.read(stream);
                let connection = exec.connection.and_then(|id| self.connections.get_mut(&id));
                if let (Some(connection), Some(response)) = (connection, response) {
                    connection.answer(&response);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            // The others are for a foreground program, which this is not.
            if signal == Ok(Signal::SIGTERM) {
                self.begin_shutdown(TERM_GRACE);
            }
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        // The socket's mode says so already; a directory's mode can change.
        let ours = rustix::process::geteuid().as_raw();
        let allowed = towline_sys::peer_credentials(&stream)
            .is_ok_and(|peer| peer.uid == 0 || peer.uid == ours);
        if let Ok(connection) = Connection::new(stream)
            && allowed
        {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    fn converse(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.is_idle() {
            connection.receive();
            self.answer_requests(id);
        } else if !connection.has_output() {
            // It waits and has nothing to write, so it was closed.
            connection.closed = true;
        } else {
            connection.flush();
        }
    }

    fn answer_requests(&mut self, id: u64) {
        while let Some(request) = self
            .connections
            .get_mut(&id)
            .and_then(Connection::next_request)
        {
            let response = self.request(id, request);
            if let (Some(connection), Some(response)) = (self.connections.get_mut(&id), response) {
                connection.answer(&response);
            }
        }
    }

    /// Looks at every child that has ended. Also those that nobody knows are
    /// reaped: they hold up the end of the pid namespace that they are in.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let signal = status.terminating_signal();
            let code = match (status.exit_status(), signal) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            if let Some(container) = self
                .containers
                .values_mut()
                .find(|container| container.is_alive() && container.state.pid == pid)
            {
                container.ended(code, signal);
            } else if let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) {
                exec.ended(code);
            } else if self.sandbox.init == Some(pid) {
                tracing::error!(code, "the pod's first process has ended");
                self.sandbox.init = None;
            }
        }
    }

    /// Does what has become possible.
    fn settle(&mut self) {
        let now = Instant::now();
        for container in self.containers.values_mut() {
            container.settle(&self.sandbox.library.paths);
        }
        self.settle_execs(now);
        let waiting: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.pending.is_some())
            .map(|(&id, _)| id)
            .collect();
        for id in waiting {
            self.settle_connection(id, now);
        }
        if let Some(mut shutdown) = self.shutdown
            && !shutdown.killed
            && shutdown.kill_at <= now
        {
            self.containers.values().for_each(Container::kill_all);
            shutdown.killed = true;
            shutdown.kill_at = now + KILL_PATIENCE;
            self.shutdown = Some(shutdown);
        }
    }

    fn settle_execs(&mut self, now: Instant) {
        let connections = &mut self.connections;
        self.execs.retain_mut(|exec| {
            exec.enforce_deadline(now);
            let Some(exit) = exec.finished(now) else {
                return true;
            };
            if let Some(connection) = exec.connection.and_then(|id| connections.get_mut(&id)) {
                connection.complete(&Response::Exec(exit));
            }
            false
        });
    }

    fn settle_connection(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let response = match connection.pending.clone() {
            Some(Pending::Wait { id, deadline }) => match self.containers.get(&id) {
                Some(container) => {
                    let over = container.state.status == Status::Exited
                        || deadline.is_some_and(|deadline| deadline <= now);
                    over.then(|| Response::State(container.state.clone()))
                }
                None => Some(request::not_found(&id)),
            },
            Some(Pending::Delete { id }) => match self.containers.get(&id) {
                Some(container) if container.state.status != Status::Exited => None,
                Some(container) => {
                    container.remove(&self.sandbox.library.paths);
                    self.containers.remove(&id);
                    Some(Response::Done)
                }
                None => Some(Response::Done),
            },
            Some(Pending::Exec | Pending::Shutdown) | None => None,
        };
        if let Some(response) = response {
            connection.complete(&response);
            self.answer_requests(id);
        }
    }

    /// Writes what can be written, and forgets connections that have gone.
    fn flush(&mut self) {
        for connection in self.connections.values_mut() {
            connection.flush();
        }
        let gone: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.closed)
            .map(|(&id, _)| id)
            .collect();
        for id in &gone {
            self.connections.remove(id);
        }
        for exec in &mut self.execs {
            if exec.connection.is_some_and(|id| gone.contains(&id)) {
                exec.connection = None;
                exec.kill();
            }
        }
    }

    fn begin_shutdown(&mut self, grace: Duration) {
        if self.shutdown.is_some() {
            return;
        }
        for container in self.containers.values() {
            // One that is only created has no program to ask.
            let signal = match container.state.status {
                Status::Running if !grace.is_zero() => nix::libc::SIGTERM,
                _ => nix::libc::SIGKILL,
            };
            if let Err(failure) = container.kill(signal, false) {
                tracing::error!(id = container.state.id, %failure, "cannot end the container");
            }
        }
        self.shutdown = Some(Shutdown {
            kill_at: Instant::now() + grace,
            killed: false,
        });
    }

    /// Whether the shutdown has come to its end.
    fn is_over(&self) -> bool {
        self.shutdown.is_some_and(|shutdown| {
            let all = self
                .containers
                .values()
                .all(|container| container.state.status == Status::Exited);
            all || (shutdown.killed && shutdown.kill_at <= Instant::now())
        })
    }

    fn end(mut self) -> ExitCode {
        let mut code = ExitCode::SUCCESS;
        for container in self.containers.values() {
            container.remove(&self.sandbox.library.paths);
        }
        if let Some(pid) = self.sandbox.init {
            drop(send_signal(pid, nix::libc::SIGKILL));
            let pid = rustix::process::Pid::from_raw(pid);
            _ = rustix::process::waitpid(pid, WaitOptions::empty());
        }
        let tidy = || {
            if let Some(cgroup) = &self.sandbox.config.cgroup {
                cleanup::remove_cgroup(cgroup)?;
            }
            fs::remove_file(&self.socket)?;
            fs::remove_dir_all(self.sandbox.library.paths.oci())?;
            fs::remove_dir_all(self.sandbox.library.paths.bundles())
        };
        let answer = match tidy() {
            Ok(()) => Response::Done,
            Err(error) => {
                code = ExitCode::FAILURE;
                Response::Failure(crate::internal(&error))
            }
        };
        for connection in self.connections.values_mut() {
            if matches!(connection.pending, Some(Pending::Shutdown)) {
                connection.complete(&answer);
                connection.flush_last();
            }
        }
        code
    }
}

/// Binds the socket, mode 0600, also when its path is longer than an address
/// takes. One that is there is of a shim that is gone: we have the lock.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    fs::remove_file(socket)?;
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let dir = File::open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(short.join(name));
    nix::sys::stat::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
