//! Which capabilities a container's first process has.

use std::collections::BTreeSet;

/// What a container has when nobody says otherwise: containerd's default, which images for Kubernetes expect.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All capabilities of Linux, by their bit.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The bit of `CAP_SYS_RESOURCE`, without which `oom_score_adj` cannot be lowered.
const SYS_RESOURCE: u32 = 24;

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub(crate) struct UnknownCapability(String);

/// The set: all for a privileged container, else the default with `add` and without `drop`.
/// What this process itself may not give (`bound`) is left out.
pub(crate) fn set(
    privileged: bool,
    add: &[String],
    drop: &[String],
    bound: u64,
) -> Result<BTreeSet<&'static str>, UnknownCapability> {
    let all = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    let mut chosen: BTreeSet<&str> = if privileged || all(add) {
        ALL.into()
    } else if all(drop) {
        BTreeSet::new()
    } else {
        DEFAULT.into()
    };
    if !privileged {
        for name in named(drop)? {
            chosen.remove(name);
        }
        chosen.extend(named(add)?);
    }
    chosen.retain(|name| {
        ALL.iter()
            .position(|n| n == name)
            .is_some_and(|bit| bound >> bit & 1 == 1)
    });
    Ok(chosen)
}

/// The names in the kernel's spelling, `ALL` left out.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static str>, UnknownCapability> {
    names
        .iter()
        .map(|name| name.to_ascii_uppercase())
        .filter(|name| name != "ALL")
        .map(|name| {
            let full = if name.starts_with("CAP_") {
                name
            } else {
                format!("CAP_{name}")
            };
            ALL.into_iter()
                .find(|n| *n == full)
                .ok_or_else(|| UnknownCapability(full.chars().take(64).collect()))
        })
        .collect()
}

/// The bounding set of a process, from the text of its `/proc/PID/status`.
pub(crate) fn bounding(status: &str) -> u64 {
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or_default()
}

/// The `oom_score_adj` that can be given: without `CAP_SYS_RESOURCE` a process cannot go below its own.
pub(crate) fn oom_score(wanted: i64, own: i64, bound: u64) -> i64 {
    let wanted = wanted.clamp(-1000, 1000);
    if bound >> SYS_RESOURCE & 1 == 1 {
        wanted
    } else {
        wanted.max(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn default_add_and_drop() {
        let all = u64::MAX;
        assert_eq!(set(false, &[], &[], all).unwrap().len(), 14);
        assert_eq!(set(true, &[], &names(&["ALL"]), all).unwrap().len(), 41);
        let one = set(false, &names(&["net_admin"]), &names(&["ALL"]), all).unwrap();
        assert_eq!(one.into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        let less = set(false, &names(&["ALL"]), &names(&["CAP_SYS_ADMIN"]), all).unwrap();
        assert!(less.len() == 40 && !less.contains("CAP_SYS_ADMIN"));
        assert!(set(false, &names(&["FLY"]), &[], all).is_err());
    }

    #[test]
    fn nothing_beyond_the_own_bounding_set() {
        let bound = bounding("Name:\tx\nCapBnd:\t000001fffeffffff\n");
        let set = set(true, &[], &[], bound).unwrap();
        assert!(set.len() == 40 && !set.contains("CAP_SYS_RESOURCE"));
        assert_eq!(oom_score(-997, 0, bound), 0);
        assert_eq!(oom_score(1000, 0, bound), 1000);
        assert_eq!(oom_score(-997, 0, u64::MAX), -997);
    }
}
