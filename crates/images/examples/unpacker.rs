//! The helper as the tests start it: entered before the process has any thread, as the `towline` binary does. With `attack` the processes of
//! layers unpack nothing and try what they can still do; with `dig` they make directories, each in the one before.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test does"
)]

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::Signal;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("attack") => towline_images::helper::main_of(attack),
        Some("dig") => towline_images::helper::main_of(dig),
        _ => towline_images::helper::main(),
    }
}

/// More than there are descriptors, and than fit a stack. Each costs the more, the deeper it is: Landlock looks at all that it is in.
const DEEP: u32 = 5000;

/// Directories far deeper than any path is long; how many.
fn dig() -> String {
    let mut dir = rustix::fs::openat(CWD, "/", OFlags::PATH, Mode::empty()).unwrap();
    for depth in 0..DEEP {
        let made = rustix::fs::mkdirat(&dir, "d", Mode::RWXU);
        let opened = made.and_then(|()| rustix::fs::openat(&dir, "d", OFlags::PATH, Mode::empty()));
        match opened {
            Ok(deeper) => dir = deeper,
            Err(errno) => return format!("dug {depth}: {errno}"),
        }
    }
    format!("dug {DEEP}")
}

/// Whoever owns a descriptor with this flag gets a signal when something comes.
const O_ASYNC: u32 = 0o20000;

/// What was tried, each with `done` or `refused`.
fn attack() -> String {
    let mut report = String::new();
    let mut tell = |what: &str, done: bool| {
        let how = if done { "done" } else { "refused" };
        write!(report, "{what}: {how}; ").unwrap();
    };
    // What unpacking needs.
    tell("make a file", File::create("/inside").is_ok());
    let folder = rustix::fs::mkdirat(CWD, "/folder", Mode::RWXU);
    tell("make a folder", folder.is_ok());
    // Files.
    for outside in ["/etc/passwd", "/proc/self/status", "/dev/null", "/tmp"] {
        tell(&format!("open {outside}"), File::open(outside).is_ok());
        let mode = std::fs::metadata(outside);
        tell(&format!("look at {outside}"), mode.is_ok());
    }
    tell("read what is inside", std::fs::read("/inside").is_ok());
    let above = rustix::fs::openat(CWD, "../../..", OFlags::PATH, Mode::empty());
    let here = rustix::fs::stat("/").map(|stat| stat.st_ino);
    let above = above.and_then(rustix::fs::fstat).map(|stat| stat.st_ino);
    tell("go up", above.is_ok() && above != here);
    let device = rustix::fs::makedev(8, 0);
    for (kind, name) in [
        (FileType::BlockDevice, "/block"),
        (FileType::CharacterDevice, "/char"),
    ] {
        rustix::fs::mknodat(CWD, name, kind, Mode::RWXU, device).ok();
        let opened = OpenOptions::new().write(true).open(name);
        tell(&format!("open a device of its own, {name}"), opened.is_ok());
    }
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, "/null", FileType::CharacterDevice, Mode::RWXU, null).ok();
    let opened = OpenOptions::new().write(true).open("/null");
    tell("open /null of its own", opened.is_ok());
    // Network.
    // Nobody listens there: whoever may ask hears that.
    let connected = TcpStream::connect("127.0.0.1:1").map_err(|error| error.raw_os_error());
    tell("connect", !matches!(connected, Err(Some(1))));
    tell("make a socket", UnixStream::pair().is_ok());
    // Processes.
    tell("start a program", Command::new("/inside").spawn().is_ok());
    let exec = Command::new("/inside").exec();
    tell("become a program", exec.raw_os_error() != Some(1));
    let parent = rustix::process::Pid::from_raw(1).unwrap();
    tell(
        "signal",
        rustix::process::kill_process(parent, Signal::CONT).is_ok(),
    );
    // A descriptor may be made to send signals, any signal to anybody.
    let signals = OFlags::from_bits_retain(O_ASYNC);
    let told = rustix::fs::fcntl_setfl(std::io::stdin(), signals);
    tell("have signals sent", told.is_ok());
    // Rights.
    tell(
        "leave the folder",
        rustix::process::chroot("/folder").is_ok(),
    );
    tell(
        "mount",
        rustix::mount::mount_bind("/folder", "/folder").is_ok(),
    );
    let limit = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let unlimited = rustix::process::setrlimit(rustix::process::Resource::Data, limit);
    tell("lift a limit", unlimited.is_ok());
    let capabilities = rustix::thread::capabilities(None);
    tell("look at its capabilities", capabilities.is_ok());
    // What it was left.
    let environment = std::env::vars_os().count();
    write!(report, "variables: {environment}; ").unwrap();
    report
}
