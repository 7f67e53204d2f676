//! One process owns a store.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;
use towline_sys::fs::{At as _, FsError};

use crate::StoreError;

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
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse {
                    path: root.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(errno) => return Err(FsError::new("lock", &path, errno).into()),
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

fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let read = Read::take(&mut *file, 512).read_to_end(&mut text);
    match read {
        Ok(1..) => String::from_utf8_lossy(&text).into_owned(),
        _ => "another process".to_owned(),
    }
}
