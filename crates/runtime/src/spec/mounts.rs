//! The mounts of a container in the OCI runtime's form.

use std::path::Path;

use serde::Serialize;

/// One mount in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SpecMount {
    pub(crate) destination: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

impl SpecMount {
    fn new(destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    /// A bind mount.
    pub(crate) fn bind(source: &Path, destination: &str, options: &[&str]) -> Self {
        let source = source.to_string_lossy();
        Self::new(destination, "bind", &source, options)
    }
}

/// How mounts made later travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

impl Propagation {
    /// The option of a bind mount.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Private => "rprivate",
            Self::HostToContainer => "rslave",
            Self::Bidirectional => "rshared",
        }
    }
}

/// A mount that the pod asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserMount {
    pub(crate) source: std::path::PathBuf,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
    pub(crate) propagation: Propagation,
}

/// Files that the sandbox lends to its containers, unless the pod mounts something there itself.
#[derive(Debug, Clone)]
pub(crate) struct SandboxFiles<'a> {
    pub(crate) hosts: &'a Path,
    pub(crate) hostname: &'a Path,
    pub(crate) resolv_conf: &'a Path,
    /// A tmpfs shared by the pod's containers, or the host's `/dev/shm`.
    pub(crate) shm: &'a Path,
}

/// All mounts in the order in which they are made.
pub(crate) fn all(
    files: &SandboxFiles<'_>,
    user: &[UserMount],
    privileged: bool,
    read_only_root: bool,
) -> Vec<SpecMount> {
    let access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        SpecMount::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        SpecMount::new(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        SpecMount::new(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        SpecMount::new(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        SpecMount::new(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", access],
        ),
        SpecMount::new(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
    ];
    let file = if read_only_root { "ro" } else { "rw" };
    let lent = [
        ("/dev/shm", files.shm, "rw"),
        ("/etc/hosts", files.hosts, file),
        ("/etc/hostname", files.hostname, file),
        ("/etc/resolv.conf", files.resolv_conf, file),
    ];
    for (destination, source, access) in lent {
        if !user.iter().any(|m| m.destination == destination) {
            mounts.push(SpecMount::bind(
                source,
                destination,
                &["rbind", "rprivate", "nosuid", "nodev", access],
            ));
        }
    }
    // What the pod mounts takes the place of a default at the same path.
    mounts.retain(|m| !user.iter().any(|u| u.destination == m.destination));
    let mut asked: Vec<&UserMount> = user.iter().collect();
    // A parent has to be there before what is mounted in it.
    asked.sort_by_key(|m| m.destination.matches('/').count());
    mounts.extend(asked.into_iter().map(|m| {
        let access = if m.read_only { "ro" } else { "rw" };
        SpecMount::bind(
            &m.source,
            &m.destination,
            &["rbind", m.propagation.option(), access],
        )
    }));
    mounts
}

/// `rootfsPropagation`. The OCI runtime library leaves the option of a single mount aside, so the root's decides for all:
/// private unless a mount asks for more. Beside such a mount the private ones of the same container see later mounts too.
pub(crate) fn root_propagation(user: &[UserMount]) -> &'static str {
    let any = |wanted| user.iter().any(|m| m.propagation == wanted);
    if any(Propagation::Bidirectional) {
        "shared"
    } else if any(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

/// A container path, normalised; `None` where it is not absolute, climbs, or is the root itself.
pub(crate) fn destination(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| format!("/{}", parts.join("/")))
}

/// Files of `/proc` that programs such as lxcfs replace, and that protect nothing.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Whether something may be mounted there: over `/proc` it could fake what protects the host, such as the files through
/// which the OCI runtime sets a process's security label. The node's own `/proc` may take its place.
pub(crate) fn may_cover(destination: &str, source: &Path) -> bool {
    if destination == "/proc" {
        return source == Path::new("/proc");
    }
    !destination.starts_with("/proc/") || PROC_FILES.contains(&destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn files() -> SandboxFiles<'static> {
        SandboxFiles {
            hosts: Path::new("/s/hosts"),
            hostname: Path::new("/s/hostname"),
            resolv_conf: Path::new("/s/resolv.conf"),
            shm: Path::new("/s/shm"),
        }
    }

    fn user(destination: &str) -> UserMount {
        UserMount {
            source: PathBuf::from("/host"),
            destination: destination.to_owned(),
            read_only: true,
            propagation: Propagation::HostToContainer,
        }
    }

    #[test]
    fn the_pods_mounts_replace_the_defaults_and_parents_come_first() {
        let asked = [
            user("/data/inner"),
            user("/etc/hosts"),
            user("/data"),
            user("/dev/shm"),
        ];
        let mounts = all(&files(), &asked, false, false);
        let places: Vec<&str> = mounts.iter().map(|m| m.destination.as_str()).collect();
        assert_eq!(places.iter().filter(|p| **p == "/etc/hosts").count(), 1);
        assert_eq!(places.iter().filter(|p| **p == "/dev/shm").count(), 1);
        let at = |p: &str| places.iter().position(|q| *q == p).unwrap();
        assert!(at("/data") < at("/data/inner"));
        assert_eq!(mounts[at("/data")].options, ["rbind", "rslave", "ro"]);
        assert_eq!(root_propagation(&asked), "slave");
        assert_eq!(root_propagation(&[]), "private");
    }

    #[test]
    fn sysfs_is_writable_only_for_the_privileged() {
        for (privileged, option) in [(false, "ro"), (true, "rw")] {
            let mounts = all(&files(), &[], privileged, false);
            let sys = mounts.iter().find(|m| m.destination == "/sys").unwrap();
            assert!(sys.options.iter().any(|o| o == option));
        }
    }

    #[test]
    fn nothing_covers_proc() {
        for (destination, source, may) in [
            ("/proc", "/proc", true),
            ("/proc", "/tmp", false),
            ("/proc/self/attr", "/tmp", false),
            ("/proc/meminfo", "/var/lib/lxcfs/proc/meminfo", true),
            ("/procs", "/tmp", true),
            ("/data", "/proc", true),
        ] {
            assert_eq!(
                may_cover(destination, Path::new(source)),
                may,
                "{destination}"
            );
        }
    }

    #[test]
    fn destinations() {
        assert_eq!(destination("/a//b/./c/").as_deref(), Some("/a/b/c"));
        for bad in ["", "a", "/", "/./", "/a/../b", "/..", "/a\0b"] {
            assert_eq!(destination(bad), None, "{bad:?}");
        }
    }
}
