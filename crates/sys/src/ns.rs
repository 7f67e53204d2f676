//! Namespaces: network namespaces pinned as files, work inside one on a
//! thread of its own, and joining for single-threaded programs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::fs::{self, At as _, FsError};
use crate::mount;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Mount points.
    Mount,
    /// Network.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Process ids; takes effect for children only.
    Pid,
    /// Cgroup root.
    Cgroup,
    /// User and group ids, and the capabilities over what belongs to them.
    User,
}

impl Kind {
    fn flag(self) -> CloneFlags {
        match self {
            Self::Mount => CloneFlags::CLONE_NEWNS,
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::User => CloneFlags::CLONE_NEWUSER,
        }
    }

    /// Its file below `/proc/<pid>/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::User => "user",
        }
    }
}

/// Moves the calling *thread* into new namespaces of these kinds.
pub fn unshare(kinds: &[Kind]) -> io::Result<()> {
    let flags = kinds.iter().map(|kind| kind.flag()).collect();
    Ok(nix::sched::unshare(flags)?)
}

/// Moves the calling *thread* into a namespace of which `file` is the handle.
pub fn join(file: impl AsFd, kind: Kind) -> io::Result<()> {
    Ok(nix::sched::setns(file, kind.flag())?)
}

/// A network namespace that lives as long as the file it is pinned to, no
/// process needed.
#[derive(Debug, Clone)]
pub struct NetNs {
    path: PathBuf,
}

impl NetNs {
    /// Creates a namespace and pins it to `path`, which must not exist; the
    /// directory above it is created. No link is up in it, not even loopback.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, FsError> {
        let path = path.into();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        File::create_new(&path).at("create", &path)?;
        let pinned = run_thread("netns-create", || {
            unshare(&[Kind::Network]).at("create a network namespace for", &path)?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount::bind(own, &path, mount::Bind::default())
        });
        match pinned {
            Ok(()) => Ok(Self { path }),
            Err(error) => {
                // The first error is what matters.
                drop(fs::remove_file(&path));
                Err(error)
            }
        }
    }

    /// A namespace pinned before, for instance by an earlier run. It is
    /// checked that the file is one.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FsError> {
        let path = path.into();
        let file = fs::open(&path)?;
        let stat = rustix::fs::fstatfs(&file).at("ask the file system of", &path)?;
        if stat.f_type != NSFS_MAGIC {
            let error = io::Error::new(io::ErrorKind::InvalidData, "no namespace is pinned there");
            return Err(FsError::new("open the network namespace", path, error));
        }
        Ok(Self { path })
    }

    /// Where it is pinned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle, for moving a network link into it or for `setns`.
    pub fn file(&self) -> Result<File, FsError> {
        fs::open(&self.path)
    }

    /// Runs `body` inside the namespace, on a thread of its own that ends with
    /// it. Sockets that it opens stay in the namespace for good. `body` may
    /// start a current-thread async runtime.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T, FsError> {
        let file = self.file()?;
        run_thread("netns", || {
            join(&file, Kind::Network).at("enter the network namespace", &self.path)?;
            Ok(body())
        })
    }

    /// Unpins it: the kernel frees it (and the links in it) when no process
    /// and no socket is left inside. Missing is no error.
    pub fn remove(self) -> Result<(), FsError> {
        mount::unmount(&self.path)?;
        fs::remove_file(&self.path)
    }
}

/// Magic number of the file system that namespace handles are on.
const NSFS_MAGIC: i64 = 0x6e73_6673;

fn run_thread<T: Send>(name: &str, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn_scoped(scope, body)
            .unwrap_or_else(|error| panic!("start thread {name}: {error}"));
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::need_root;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    fn current() -> PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn pinned_entered_and_removed() {
        if !need_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let ns = NetNs::create(dir.path().join("sub/pod")).unwrap();
        assert!(
            NetNs::create(ns.path()).is_err(),
            "a second one must not cover the first"
        );
        let here = current();
        let inside = ns.run(current).unwrap();
        assert_ne!(inside, here);
        assert_eq!(current(), here, "the caller's thread stays where it was");
        assert_eq!(
            NetNs::open(ns.path()).unwrap().run(current).unwrap(),
            inside
        );

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let reached = ns.run(|| TcpStream::connect(address).is_ok()).unwrap();
        assert!(!reached, "another network");

        let path = ns.path().to_owned();
        ns.remove().unwrap();
        assert!(!path.exists());
        assert!(mount::mounts_under(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_plain_file_is_no_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "").unwrap();
        assert!(NetNs::open(&path).is_err());
    }
}
