//! Helpers for tests that need root or a program: such a test says that it
//! was skipped, and where `CI` is `true` it fails instead.
#![expect(
    clippy::print_stderr,
    reason = "a skipped test has to say so on the test's output"
)]

use std::path::PathBuf;

fn skip(what: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "needs {what}, and CI must not skip"
    );
    eprintln!("skipped: needs {what}");
}

/// Whether the test runs as root; says that it was skipped otherwise.
/// `if !need_root() { return; }`
pub fn need_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("root");
    }
    root
}

/// The path of a program in `PATH`, or in the directories of the variable
/// `TOWLINE_TEST_PATH` before that; says that the test was skipped otherwise.
pub fn need_program(name: &str) -> Option<PathBuf> {
    let found = find_program(name);
    if found.is_none() {
        skip(name);
    }
    found
}

/// As [`need_program`] without a word when it is not there.
pub fn find_program(name: &str) -> Option<PathBuf> {
    ["TOWLINE_TEST_PATH", "PATH"]
        .iter()
        .filter_map(std::env::var_os)
        .flat_map(|dirs| std::env::split_paths(&dirs).collect::<Vec<_>>())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Runs `body` on a thread in a mount namespace of its own: what it mounts is
/// seen by nobody else and is gone afterwards. Needs root.
pub fn in_mount_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        crate::ns::unshare(&[crate::ns::Kind::Mount]).expect("unshare the mount namespace");
        crate::mount::make_private("/").expect("make all mounts private");
        body()
    })
}

/// Runs `body` on a thread in a new network namespace without any link up.
/// Needs root.
pub fn in_network_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        crate::ns::unshare(&[crate::ns::Kind::Network]).expect("unshare the network namespace");
        body()
    })
}

fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(body)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
