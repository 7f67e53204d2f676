//! A new journalled file system for every run, and cold caches.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Bytes of the file below the file system; they are allocated once, so that no run pays for that.
const BYTES: &str = "6G";

/// An ext4 with a journal, in a loop file, mounted until dropped.
pub(crate) struct Scratch {
    mount: PathBuf,
}

impl Scratch {
    /// Makes a new file system in `dir` and mounts it.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let (file, mount) = (dir.join("disk.img"), dir.join("mnt"));
        std::fs::create_dir_all(&mount).with_context(|| format!("make {}", mount.display()))?;
        if !file.exists() {
            run(Command::new("fallocate").args(["-l", BYTES]).arg(&file))?;
        }
        let eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", eager])
            .arg(&file))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&file, &mount]))?;
        Ok(Self { mount })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(&self.mount).context("ask how full the disk is")?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
    }

    /// Writes everything to the disk.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        let dir = File::open(&self.mount).context("open the disk")?;
        rustix::fs::syncfs(dir).context("sync the disk")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A daemon that was told to end may take a moment to let go.
        for _ in 0..50 {
            let unmounted = Command::new("umount")
                .arg(&self.mount)
                .stderr(Stdio::null())
                .status();
            if unmounted.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        super::say(&format!("{} stays mounted", self.mount.display()));
    }
}

/// Syncs, drops the page cache, and reads back what the registry serves: its disk is not measured.
pub(crate) fn cool(served: &Path) -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache")?;
    read_all(served)
}

/// Brings every file below a directory into the page cache.
pub(crate) fn read_all(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read_all(&entry.path())?;
        } else {
            std::io::copy(&mut File::open(entry.path())?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// Runs a helper to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} fails: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
