//! Cgroups of either kind: where the hierarchies are mounted, and one named
//! group in all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fs::{self, At as _, FsError};
use crate::mount::unescape;

/// Most of a `cgroup.procs` that is read, in bytes.
const PROCS_LIMIT: u64 = 16 << 20;

/// How often a group that does not become empty is looked at again.
const LOOK: Duration = Duration::from_millis(5);

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `None` for cgroup v2, the controllers (`memory`, `name=systemd`) for v1.
    pub v1: Option<Vec<String>>,
}

/// All hierarchies mounted here: one for pure v2, many for v1 and hybrid.
pub fn hierarchies() -> Result<Vec<Hierarchy>, FsError> {
    let text = fs::read_bounded("/proc/thread-self/mountinfo", 64 << 20)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        let v1 = match right.next() {
            Some("cgroup2") => None,
            Some("cgroup") => {
                let options = right.nth(1).unwrap_or_default().split(',');
                let plain = ["rw", "ro", "xattr", "noprefix", "clone_children"];
                Some(
                    options
                        .filter(|option| !plain.contains(option))
                        .map(str::to_owned)
                        .collect(),
                )
            }
            _ => continue,
        };
        let bytes = unescape(point.as_bytes());
        let mount = PathBuf::from(String::from_utf8_lossy(&bytes).into_owned());
        // Mounted twice (a bind, a container's view): the first counts.
        if !found.iter().any(|other| other.v1 == v1) {
            found.push(Hierarchy { mount, v1 });
        }
    }
    found
}

/// A group of one name in all hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroup {
    dirs: Vec<(Option<Vec<String>>, PathBuf)>,
}

impl Cgroup {
    /// The group `name` (`towline/pod-1`, a leading `/` is dropped) below the
    /// hierarchies' roots. Nothing is created. `..` is refused.
    pub fn new(name: &str) -> Result<Self, FsError> {
        let relative = name.trim_start_matches('/');
        let bad = relative.is_empty()
            || relative
                .split('/')
                .any(|part| matches!(part, "" | "." | ".."));
        if bad {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path");
            return Err(FsError::new("use the cgroup", name, error));
        }
        let dirs = hierarchies()?
            .into_iter()
            .map(|hierarchy| (hierarchy.v1, hierarchy.mount.join(relative)))
            .collect();
        Ok(Self { dirs })
    }

    /// The directory with the files of `controller`: its v1 hierarchy, else v2.
    /// `None` when it does not exist.
    pub fn controller(&self, controller: &str) -> Option<&Path> {
        let v1 = self.dirs.iter().find(|(v1, _)| {
            v1.as_ref()
                .is_some_and(|names| names.iter().any(|name| name == controller))
        });
        let found = v1.or_else(|| self.dirs.iter().find(|(v1, _)| v1.is_none()));
        found
            .map(|(_, dir)| dir.as_path())
            .filter(|dir| dir.exists())
    }

    /// Whether `controller` is served by a v1 hierarchy.
    pub fn is_v1(&self, controller: &str) -> bool {
        self.dirs.iter().any(|(v1, _)| {
            v1.as_ref()
                .is_some_and(|names| names.iter().any(|name| name == controller))
        })
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|(_, dir)| dir.exists())
    }

    /// The processes in it and below it, in our pid namespace.
    pub fn processes(&self) -> Result<Vec<i32>, FsError> {
        let mut pids = Vec::new();
        for (_, dir) in &self.dirs {
            collect(dir, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        // 0 stands for a process outside our pid namespace.
        pids.retain(|&pid| pid > 0);
        Ok(pids)
    }

    /// Kills all processes in it and below it, through `cgroup.kill` where
    /// there is one. Does not wait for them.
    pub fn kill(&self) -> Result<(), FsError> {
        for (v1, dir) in &self.dirs {
            if v1.is_none() && dir.join("cgroup.kill").exists() {
                let file = dir.join("cgroup.kill");
                std::fs::write(&file, "1").at("write", &file)?;
            }
        }
        for pid in self.processes()? {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(FsError::new("kill process", pid.to_string(), errno)),
            }
        }
        Ok(())
    }

    /// Removes it and what is below it, waiting up to `wait` for processes
    /// that are still ending. Missing is no error.
    pub fn remove(&self, wait: Duration) -> Result<(), FsError> {
        let until = Instant::now() + wait;
        for (_, dir) in &self.dirs {
            loop {
                match remove_tree(dir) {
                    Err(error)
                        if error.kind() == io::ErrorKind::ResourceBusy
                            && Instant::now() < until =>
                    {
                        std::thread::sleep(LOOK);
                    }
                    other => {
                        other?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn subdirs(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FsError::new("list", dir, error)),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry.at("list", dir)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> Result<(), FsError> {
    let Some(bytes) = read_procs(&dir.join("cgroup.procs"))? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&bytes);
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for sub in subdirs(dir)? {
        collect(&sub, pids)?;
    }
    Ok(())
}

fn read_procs(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    match fs::read_optional(path, PROCS_LIMIT) {
        // ENODEV: the group is being removed. EOPNOTSUPP: a threaded group.
        Err(error) if matches!(error.source.raw_os_error(), Some(19 | 95)) => Ok(None),
        other => other,
    }
}

fn remove_tree(dir: &Path) -> Result<(), FsError> {
    for sub in subdirs(dir)? {
        remove_tree(&sub)?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FsError::new("remove cgroup", dir, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::ChildGuard;
    use crate::testing::need_root;

    #[test]
    fn hybrid_and_pure_layouts_are_read() {
        let hybrid = "25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      26 24 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      27 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      28 24 0:23 / /mnt rw - cgroup2 cgroup2 rw\n\
                      29 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        let found = parse(hybrid);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].v1.as_deref().unwrap(), ["cpu", "cpuacct"]);
        assert_eq!(found[1].mount, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found[2].v1.as_deref().unwrap(), ["name=systemd"]);
    }

    #[test]
    fn names_that_climb_are_refused() {
        for name in ["", "/", "a/../b", "..", "a//b"] {
            assert!(Cgroup::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn kills_and_removes_what_is_below() {
        if !need_root() {
            return;
        }
        let name = format!("towline-test-{}", std::process::id());
        let group = Cgroup::new(&name).unwrap();
        let child = ChildGuard::spawn(std::process::Command::new("sleep").arg("100")).unwrap();
        for (_, dir) in &group.dirs {
            let sub = dir.join("sub");
            if std::fs::create_dir_all(&sub).is_ok() {
                // A v1 cpuset group takes no process before it has CPUs.
                drop(std::fs::write(
                    sub.join("cgroup.procs"),
                    child.id().to_string(),
                ));
            }
        }
        assert!(group.exists());
        assert_eq!(
            group.processes().unwrap(),
            [i32::try_from(child.id()).unwrap()]
        );
        group.kill().unwrap();
        group.remove(Duration::from_secs(5)).unwrap();
        assert!(!group.exists());
    }
}
