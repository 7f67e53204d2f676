//! What the tests share: a node of the real binary, kubectl, registries, waiting with a deadline.

pub(crate) mod containerd;
pub(crate) mod node;
pub(crate) mod ourselves;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod schema;

use std::time::{Duration, Instant};

/// Waits until `done` gives a value, for at most so many seconds; `what` is for the failure.
pub(crate) fn eventually<T>(
    what: &str,
    seconds: u64,
    mut done: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match done() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > Duration::from_secs(seconds) => {
                panic!("{what}: not within {seconds} s; last: {last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
