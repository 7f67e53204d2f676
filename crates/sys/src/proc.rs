//! Child processes that do not outlive the one who started them, and what a
//! single-threaded program does to start others.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a child is looked at while waiting with a deadline.
const LOOK: Duration = Duration::from_millis(5);

/// A child that is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
}

impl ChildGuard {
    /// Starts the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self {
            child: command.spawn()?,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal, unless it has already been reaped.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits until it ends or the time is over (`None`).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// TERM, then KILL after `grace`.
    pub fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait_timeout(grace)? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a child that is
        // already gone is the usual case.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The one who called, with the child's process id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks a process that has one thread only; with more it is an error, since
/// the child would inherit locks that nobody will ever release.
pub fn fork_single_threaded() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "fork of a process with {threads} threads"
        )));
    }
    #[expect(
        unsafe_code,
        reason = "fork is unsafe because of threads; there are none"
    )]
    // SAFETY: what makes fork unsafe is other threads, of which the state is
    // frozen in the child. There is one thread, and only it could start more.
    let fork = unsafe { nix::unistd::fork() }?;
    Ok(match fork {
        nix::unistd::ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
        nix::unistd::ForkResult::Child => Fork::Child,
    })
}

/// Sends a signal of any number (real-time ones too) to a process, or with a
/// negative `pid` to a process group. That it is gone is no error.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the safe wrappers know no real-time signals")]
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let answer = unsafe { nix::libc::kill(pid, signal) };
    match nix::errno::Errno::result(answer) {
        Ok(_) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Calls a library that forgets to close descriptors when it fails: of a
/// failure, those that it opened and that are still open are closed. The error
/// must not own one. Only for a process with a single thread, since others'
/// descriptors could not be told from the library's.
pub fn close_leaks_of_failure<T, E>(body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = descriptors();
    let result = body();
    if result.is_err()
        && let (Ok(before), Ok(after)) = (before, descriptors())
    {
        for leaked in after.difference(&before) {
            #[expect(unsafe_code, reason = "nobody owns what the library forgot")]
            // SAFETY: it was opened in `body` and outlived it, and there is no
            // value left that could own it. Closing what is not open (the
            // listing's own descriptor) is refused.
            unsafe {
                nix::libc::close(*leaked);
            }
        }
    }
    result
}

/// Lets no descriptor but the standard three survive the next `exec`,
/// wherever they came from.
pub fn close_on_exec() -> io::Result<()> {
    // With this flag nothing is closed now.
    close_range(3, nix::libc::c_uint::MAX, nix::libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor but the standard three and these. Nobody may own one of the others.
pub fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<_> = kept
        .iter()
        .map(|fd| fd.as_raw_fd().cast_unsigned())
        .collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([nix::libc::c_uint::MAX]) {
        if fd > from {
            close_range(from, fd - 1, 0)?;
        }
        from = from.max(fd.saturating_add(1));
    }
    Ok(())
}

/// The standard input as a descriptor of its own, out of the way of the standard three; in its place nothing is to be read.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(stdin)
}

fn close_range(
    from: nix::libc::c_uint,
    to: nix::libc::c_uint,
    flags: nix::libc::c_uint,
) -> io::Result<()> {
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    // SAFETY: the call touches no memory; that nobody owns what it closes is
    // its callers' to say.
    let answer = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, from, to, flags) };
    nix::errno::Errno::result(answer)?;
    Ok(())
}

/// Ends a forked process without any of the work that ends a program: what it
/// would flush or remove is its parent's.
pub fn end_at_once(code: i32) -> ! {
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    // SAFETY: the process is over; nothing of it runs after this.
    unsafe {
        nix::libc::_exit(code)
    }
}

fn descriptors() -> io::Result<std::collections::BTreeSet<i32>> {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Gives every signal its default action back: Rust programs ignore `SIGPIPE`,
/// and what was ignored by whoever started us (`SIGHUP` by nohup) still is;
/// an `exec` would pass that on.
pub fn reset_signals() {
    for signal in 1..=64 {
        #[expect(unsafe_code, reason = "the default action runs no code of ours")]
        // SAFETY: the default action is no handler, so no code of ours runs in
        // a signal's context. Numbers that cannot be changed are refused.
        unsafe {
            nix::libc::signal(signal, nix::libc::SIG_DFL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_dropped_child_is_dead() {
        let child = ChildGuard::spawn(Command::new("sleep").arg("100")).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        drop(child);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn a_program_with_threads_is_not_forked() {
        std::thread::scope(|scope| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert!(fork_single_threaded().is_err());
            drop(done);
        });
    }

    #[test]
    fn signals_of_any_number_are_sent_and_a_missing_process_is_no_error() {
        let mut child = ChildGuard::spawn(Command::new("sleep").arg("100")).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        send_signal(pid, 40).unwrap();
        let status = child
            .wait_timeout(Duration::from_secs(60))
            .unwrap()
            .unwrap();
        assert_eq!(status.signal(), Some(40));
        send_signal(pid, 9).unwrap();
        assert!(send_signal(1, 999).is_err());
    }

    #[test]
    fn terminate_is_asked_before_it_is_forced() {
        let mut child = ChildGuard::spawn(Command::new("sleep").arg("100")).unwrap();
        assert!(
            child
                .wait_timeout(Duration::from_millis(1))
                .unwrap()
                .is_none()
        );
        let status = child.terminate(Duration::from_secs(5)).unwrap();
        assert_eq!(status.signal(), Some(15));
    }
}
