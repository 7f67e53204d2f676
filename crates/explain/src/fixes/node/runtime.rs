//! The runtimes whose configuration is written.

use std::fmt;

/// A container runtime, as far as its configuration differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    /// containerd; its major version, where that is known.
    Containerd(Option<u32>),
    /// The containerd of k3s and RKE2, whose configuration they write themselves.
    K3s,
    /// CRI-O; podman reads the same files.
    Crio,
    /// Docker by cri-dockerd.
    Docker,
    /// Our own.
    Towline,
}

impl Runtime {
    /// From what a node says of its runtime, such as `containerd://2.1.9`; the usual ones where it says nothing that is known.
    pub(super) fn of(said: Option<&str>) -> Vec<Self> {
        let (name, version) = said
            .and_then(|said| said.split_once("://"))
            .unwrap_or_default();
        let major = version.trim_start_matches('v').split('.').next();
        match name {
            "containerd" if version.contains("k3s") => vec![Self::K3s],
            "containerd" => vec![Self::Containerd(major.and_then(|major| major.parse().ok()))],
            "cri-o" => vec![Self::Crio],
            "docker" => vec![Self::Docker],
            "towline" => vec![Self::Towline],
            _ => vec![Self::Containerd(None), Self::Crio],
        }
    }

    /// Its service, as systemd calls it.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Containerd(_) => "containerd",
            Self::K3s => "k3s",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Towline => "towline",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd(Some(major)) => write!(f, "containerd {major}.x"),
            Self::Containerd(None) => f.write_str("containerd"),
            Self::K3s => f.write_str("k3s or RKE2"),
            Self::Crio => f.write_str("CRI-O"),
            Self::Docker => f.write_str("Docker"),
            Self::Towline => f.write_str("Towline"),
        }
    }
}
