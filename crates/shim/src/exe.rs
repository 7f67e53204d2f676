//! The shim runs from a copy of itself that nobody can write to.
//!
//! A process inside a container can reach the executable of whoever enters the
//! container through `/proc/<pid>/exe`, and could overwrite the host's binary
//! by it. So the program executes itself again from a read-only mount that is
//! attached nowhere (no memory is used for that), or, where that mount cannot
//! be made, from a sealed copy in memory. The new process also starts without
//! any descriptor of its caller but the standard ones, and with an environment
//! that is empty but for what is named here.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

const SELF: &str = "/proc/self/exe";

/// In the environment of a process that was executed by this one.
const MARK: &str = "TOWLINE_SHIM_SEALED";

/// Whether this process is the one that was executed again; an error when it
/// is and can be written to all the same.
pub(crate) fn is_executed_sealed() -> io::Result<bool> {
    if std::env::var_os(MARK).is_none() {
        return Ok(false);
    }
    if is_sealed()? {
        return Ok(true);
    }
    Err(io::Error::other("it can be written to after it was sealed"))
}

/// Whether this process runs from something that cannot be written.
fn is_sealed() -> io::Result<bool> {
    let stat = rustix::fs::statvfs(SELF)?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let file = File::open(SELF)?;
    // Not a memory file: the kernel knows no seals of it.
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
    Ok(seals.contains(SealFlags::WRITE))
}

/// Executes this program again, sealed, with `args` in place of `own`, the
/// arguments that [`crate::main`] was given; comes back only with an error.
pub(crate) fn execute_sealed(empty: &Path, own: usize, args: &[OsString]) -> io::Error {
    let program = towline_sys::proc::close_on_exec().and_then(|()| program(empty));
    match program {
        Ok(program) => execute(&program, own, args),
        Err(error) => error,
    }
}

/// As [`execute_sealed`] from what is sealed already.
pub(crate) fn execute_again(own: usize, args: &[OsString]) -> io::Error {
    match rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(program) => execute(&program, own, args),
        Err(error) => error.into(),
    }
}

/// The program as something that cannot be written.
fn program(empty: &Path) -> io::Result<OwnedFd> {
    if is_sealed()? {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(SELF, flags, Mode::empty())?);
    }
    view(empty).or_else(|_| copy())
}

fn execute(program: &OwnedFd, own: usize, args: &[OsString]) -> io::Error {
    // What comes before (the program's name, `shim`) leads back to us.
    let before = std::env::args_os().count().saturating_sub(own).max(1);
    let args: Result<Vec<_>, _> = std::env::args_os()
        .take(before)
        .chain(args.iter().cloned())
        .map(|arg| CString::new(arg.as_bytes()))
        .collect();
    let Ok(args) = args else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    let env = [
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        CString::new(format!("{MARK}=1")).unwrap_or_default(),
    ];
    match nix::unistd::fexecve(program, &args, &env) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

fn view(empty: &Path) -> io::Result<OwnedFd> {
    let path = std::fs::read_link(SELF)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the program has no path"));
    };
    let view = towline_sys::mount::detached_read_only(dir, empty)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(&view, name, flags, Mode::empty())?)
}

fn copy() -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(
        "towline-shim",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut memory = File::from(memory);
    io::copy(&mut File::open(SELF)?, &mut memory)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory.into())
}
