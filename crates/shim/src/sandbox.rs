//! The pod: its namespaces, which the shim itself is in, and its cgroup.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use towline_shim_api::{IpcMode, Namespaces, Network, PidMode, SandboxConfig};
use towline_sys::ns::{self, Kind};
use towline_sys::proc::{Fork, fork_single_threaded};

use crate::exe;
use crate::launch::Startup;
use crate::oci::Library;
use crate::paths::Paths;

/// `start DIR`, with which this process was started.
const START_ARGS: usize = 2;

/// The pod as the shim holds it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) library: Library,
    pub(crate) config: SandboxConfig,
    pub(crate) namespaces: Namespaces,
    /// Process 1 of the pod's pid namespace.
    pub(crate) init: Option<i32>,
    /// Held until the end.
    _lock: File,
}

impl Sandbox {
    /// Moves this process into the pod's namespaces.
    pub(crate) fn enter(paths: Paths, config: SandboxConfig, lock: File) -> Startup<Self> {
        if let Network::Path(path) = &config.network {
            let file = File::open(path).map_err(|error| {
                format!("open the network namespace {}: {error}", path.display())
            })?;
            ns::join(&file, Kind::Network).map_err(|error| {
                format!("enter the network namespace {}: {error}", path.display())
            })?;
        }
        let mut new = Vec::new();
        if config.ipc == IpcMode::Pod {
            new.push(Kind::Ipc);
        }
        if config.hostname.is_some() {
            new.push(Kind::Uts);
        }
        ns::unshare(&new).map_err(|error| format!("make the pod's namespaces: {error}"))?;
        if let Some(hostname) = &config.hostname {
            nix::unistd::sethostname(hostname)
                .map_err(|error| format!("set the host name {hostname:?}: {error}"))?;
        }
        let allowed = Allowed {
            network: matches!(config.network, Network::Path(_)),
            ipc: config.ipc == IpcMode::Pod,
        };
        write_sysctls(&config.sysctls, allowed)?;
        let init = match config.pid {
            PidMode::Pod => Some(start_init()?),
            PidMode::Container | PidMode::Host => None,
        };
        let namespaces = namespaces(&config, init);
        Ok(Self {
            library: Library::new(paths, config.patience_ms),
            config,
            namespaces,
            init,
            _lock: lock,
        })
    }
}

fn namespaces(config: &SandboxConfig, init: Option<i32>) -> Namespaces {
    let own = |kind: Kind| {
        Path::new("/proc")
            .join(std::process::id().to_string())
            .join("ns")
            .join(kind.file_name())
    };
    Namespaces {
        network: matches!(config.network, Network::Path(_)).then(|| own(Kind::Network)),
        ipc: (config.ipc == IpcMode::Pod).then(|| own(Kind::Ipc)),
        uts: config.hostname.is_some().then(|| own(Kind::Uts)),
        pid: init.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid"))),
    }
}

/// Starts process 1 of a new pid namespace. It dies with the shim.
fn start_init() -> Startup<i32> {
    let step = |error: std::io::Error| format!("start the pod's first process: {error}");
    let own = File::open("/proc/self/ns/pid").map_err(step)?;
    // For children only; put back after the one child.
    ns::unshare(&[Kind::Pid]).map_err(step)?;
    match fork_single_threaded().map_err(step)? {
        Fork::Parent(pid) => {
            ns::join(&own, Kind::Pid).map_err(step)?;
            Ok(pid)
        }
        Fork::Child => {
            let kill = Some(rustix::process::Signal::KILL);
            if rustix::process::set_parent_process_death_signal(kill).is_err() {
                std::process::abort();
            }
            let error = exe::execute_again(START_ARGS, &["init".into()]);
            tracing::error!(%error, "cannot execute the pod's first process");
            std::process::abort();
        }
    }
}

/// Which kernel parameters belong to the pod alone.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    network: bool,
    ipc: bool,
}

fn write_sysctls(sysctls: &BTreeMap<String, String>, allowed: Allowed) -> Startup<()> {
    for (name, value) in sysctls {
        let path = sysctl_path(name, allowed)
            .filter(|_| !value.contains('\n'))
            .ok_or_else(|| {
                format!("the kernel parameter {name:?} is not one of the pod's namespaces")
            })?;
        std::fs::write(&path, value)
            .map_err(|error| format!("set the kernel parameter {name}={value}: {error}"))?;
    }
    Ok(())
}

/// The file of a parameter that belongs to one of the pod's namespaces.
fn sysctl_path(name: &str, allowed: Allowed) -> Option<PathBuf> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    let ours = (allowed.network && name.starts_with("net."))
        || (allowed.ipc
            && (name == "kernel.sem" || ipc.iter().any(|prefix| name.starts_with(prefix))));
    // A dot at the end or two in a row would be an empty path component.
    let whole = name.split('.').all(|part| !part.is_empty());
    (plain && ours && whole).then(|| Path::new("/proc/sys").join(name.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pods_own_parameters_have_a_path() {
        let all = Allowed {
            network: true,
            ipc: true,
        };
        assert_eq!(
            sysctl_path("net.ipv4.ip_unprivileged_port_start", all).unwrap(),
            Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        );
        assert!(sysctl_path("kernel.shmmax", all).is_some());
        assert!(sysctl_path("kernel.sem", all).is_some());
        for bad in [
            "kernel.core_pattern",
            "kernel.semaphore",
            "vm.swappiness",
            "net/ipv4/x",
            "net.../x",
            "net..x",
            "net.",
            "net.x+y",
            "net.x=1",
            "",
        ] {
            assert!(sysctl_path(bad, all).is_none(), "{bad}");
        }
        let none = Allowed {
            network: false,
            ipc: false,
        };
        assert!(sysctl_path("net.ipv4.x", none).is_none());
        assert!(sysctl_path("kernel.shmmax", none).is_none());
    }
}
