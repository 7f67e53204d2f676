//! One process owns a store.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use towline_sys::fs::{At as _, FsError};

use crate::StoreError;

/// How long the lock of a process that is gone is waited for, and between two looks.
///
/// A killed process' lock ends with the last copy of its descriptor, and a child that was forked a moment before, and has not
/// started its program yet, has such a copy.
const GONE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// The lock, held until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(FsError::new("lock", &path, errno).into()),
            }
            let holder = holder(&mut file);
            if begun.elapsed() >= GONE || !is_gone(&holder) {
                let path = root.to_owned();
                return Err(StoreError::InUse { path, holder });
            }
            std::thread::sleep(LOOK);
        }
        // Only for the message that another process prints, so that it need not be durable.
        let program = std::env::current_exe().unwrap_or_default();
        file.set_len(0).at("write", &path)?;
        file.rewind().at("write", &path)?;
        write!(
            file,
            "process {} ({})",
            std::process::id(),
            program.display()
        )
        .at("write", &path)?;
        Ok(Self { _file: file })
    }
}

/// Whether the process that wrote itself down runs no longer. What cannot be told is not said to be gone.
fn is_gone(holder: &str) -> bool {
    let process = holder.strip_prefix("process ");
    let id = process.and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    let mounted = Path::new("/proc/self").exists();
    id.is_some_and(|id| mounted && !Path::new(&format!("/proc/{id}")).exists())
}

fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    if file.rewind().is_err() {
        return "another process".to_owned();
    }
    let read = Read::take(&mut *file, 512).read_to_end(&mut text);
    match read {
        Ok(1..) => String::from_utf8_lossy(&text).into_owned(),
        _ => "another process".to_owned(),
    }
}
