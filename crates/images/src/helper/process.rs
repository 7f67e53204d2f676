//! The helper: forks a process for each layer, ends those that nobody waits for any more, and tells how they ended.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};
use towline_sys::confine::Confinement;
use towline_sys::proc::{self, Fork};

use super::layer;
use super::wire::{Order, Said, receive, send, wait};

/// The program. Must be called while the process has one thread. Started by [`crate::Images`], not by people: without the socket that it is
/// given as its standard input it says so.
pub fn main() -> ExitCode {
    run(None)
}

/// [`main`] that unpacks nothing: once each layer's process has no rights any more it calls this, and the layer fails with the answer. For
/// tests that try what such a process can still do.
pub fn main_of(attack: fn() -> String) -> ExitCode {
    run(Some(attack))
}

fn run(instead: Option<fn() -> String>) -> ExitCode {
    match serve(instead) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it the one who started this sees that it ended.
            drop(writeln!(
                io::stderr(),
                "this part of the program unpacks layers for a pull, which starts it: {error}"
            ));
            ExitCode::from(64)
        }
    }
}

/// The process of a layer.
struct Child {
    pid: Pid,
    /// Ready when it has ended.
    ended: OwnedFd,
    /// Its end of the socket: ready when nobody is at the other one.
    socket: OwnedFd,
    killed: bool,
}

fn serve(instead: Option<fn() -> String>) -> io::Result<()> {
    let control = control()?;
    proc::close_others(&[control.as_fd()])?;
    proc::reset_signals();
    let confinement = Confinement::prepare()?;
    let mut children: Vec<Child> = Vec::new();
    loop {
        let asked = poll(&control, &mut children)?;
        reap(&mut children)?;
        if !asked {
            continue;
        }
        let Some((order, beside)) = receive::<Order>(&control)? else {
            return Ok(());
        };
        let Ok([socket, folder, listing]) = <[OwnedFd; 3]>::try_from(beside) else {
            continue;
        };
        match proc::fork_single_threaded() {
            Ok(Fork::Child) => {
                drop(children);
                drop(control);
                let said = layer::run(&order, &socket, folder, listing, &confinement, instead);
                // Who is gone does not listen.
                send(&socket, &said, &[]).ok();
                proc::end_at_once(0);
            }
            Ok(Fork::Parent(pid)) => children.push(Child::new(pid, socket)?),
            Err(error) => {
                let how = format!("cannot be started: {error}");
                send(&socket, &Said::Ended(how), &[]).ok();
            }
        }
    }
}

/// The socket that this process was given as its standard input, which it then has no more.
fn control() -> io::Result<OwnedFd> {
    let kind = rustix::net::sockopt::socket_type(io::stdin());
    if kind != Ok(SocketType::SEQPACKET) {
        return Err(io::Error::other("its standard input is not such a pull's"));
    }
    proc::take_stdin()
}

/// Waits until something happens; whether a layer is to be unpacked. Kills those that nobody waits for.
fn poll(control: &OwnedFd, children: &mut [Child]) -> io::Result<bool> {
    let mut polled = vec![PollFd::new(control, PollFlags::IN)];
    for child in children.iter() {
        polled.push(PollFd::new(&child.ended, PollFlags::IN));
    }
    for child in children.iter().filter(|child| !child.killed) {
        polled.push(PollFd::new(&child.socket, PollFlags::RDHUP));
    }
    wait(&mut polled, None)?;
    let asked = !polled[0].revents().is_empty();
    let left: Vec<bool> = polled[1 + children.len()..]
        .iter()
        .map(|polled| !polled.revents().is_empty())
        .collect();
    let watched = children.iter_mut().filter(|child| !child.killed);
    for (child, left) in watched.zip(left) {
        if left {
            child.kill();
        }
    }
    Ok(asked)
}

/// Takes those that have ended off the list, and tells how.
fn reap(children: &mut Vec<Child>) -> io::Result<()> {
    let mut failed = Ok(());
    children.retain(
        |child| match rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG) {
            Ok(None) => true,
            Ok(Some((_, status))) => {
                if status.exit_status() != Some(0) {
                    // After a word of its own it counts no more.
                    send(&child.socket, &Said::Ended(how(status)), &[]).ok();
                }
                false
            }
            Err(error) => {
                failed = Err(error.into());
                false
            }
        },
    );
    failed
}

impl Child {
    fn new(pid: i32, socket: OwnedFd) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            pid,
            ended: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
            socket,
            killed: false,
        })
    }

    fn kill(&mut self) {
        self.killed = true;
        // It may have ended of its own accord.
        rustix::process::pidfd_send_signal(&self.ended, Signal::KILL).ok();
    }
}

/// How a process ended, in words.
pub(super) fn how(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(9), _) => {
            "was killed (signal 9), as the kernel does when memory runs out (`dmesg` tells)"
                .to_owned()
        }
        (Some(signal), _) => {
            format!("was ended by signal {signal}, which is a fault in this program")
        }
        (None, Some(code)) => format!("ended with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}
