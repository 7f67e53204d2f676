//! A guard over the calls into the OCI library.
//!
//! Such a call waits for a process that works inside the image's files, and an
//! image can make that process wait for ever (a FIFO where a file is expected).
//! The program has one thread, so the guard is a process: when the call takes
//! too long it kills what the library started, and the call fails.

use std::io;
use std::time::Duration;

use nix::libc::SIGKILL;
use towline_sys::fs;
use towline_sys::proc::{Fork, fork_single_threaded, send_signal};

/// How the library names its processes until they execute their program.
const NAME: &str = "youki:[";

/// Guards calls as long as it lives.
#[derive(Debug)]
pub(crate) struct Watchdog {
    pid: i32,
}

impl Watchdog {
    /// Kills what is stuck after `patience`, again and again.
    pub(crate) fn start(patience: Duration) -> io::Result<Self> {
        let guarded = std::process::id();
        match fork_single_threaded()? {
            Fork::Parent(pid) => Ok(Self { pid }),
            Fork::Child => {
                let kill = Some(rustix::process::Signal::KILL);
                if rustix::process::set_parent_process_death_signal(kill).is_ok() {
                    watch(guarded, patience);
                }
                std::process::abort();
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // It is our child and not reaped, so the number is still its own. The
        // caller's loop may not reap it for a while: done here.
        drop(send_signal(self.pid, SIGKILL));
        _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid), None);
    }
}

fn watch(guarded: u32, patience: Duration) {
    loop {
        std::thread::sleep(patience);
        let children = format!("/proc/{guarded}/task/{guarded}/children");
        let children = fs::read_to_string_bounded(children, 1 << 20).unwrap_or_default();
        for pid in children.split_whitespace() {
            let name = fs::read_to_string_bounded(format!("/proc/{pid}/comm"), 64);
            if name.is_ok_and(|name| name.starts_with(NAME))
                && let Ok(pid) = pid.parse()
            {
                // What cannot be killed is looked at again.
                drop(send_signal(pid, SIGKILL));
            }
        }
    }
}
