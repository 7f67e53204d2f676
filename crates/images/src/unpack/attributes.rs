//! Owners, modes, extended attributes and times.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::archive::Entry;
use super::error::{CHOWN, During as _, UnpackError, shown};
use super::place::{Given, Spot};

/// What may be done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rights {
    /// Not root of the machine: devices are left out, privileged attributes where they cannot be set.
    pub(crate) unprivileged: bool,
    /// An owner that cannot be set is an error; else it is left.
    pub(crate) exact_owners: bool,
}

/// What an entry says of its inode besides what it is.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    owner: (Uid, Gid),
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    pub(crate) fn of(entry: &Entry) -> Result<Self, UnpackError> {
        let id = |id: u64| match u32::try_from(id) {
            // The last one means "leave it" to the kernel.
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(UnpackError::entry(
                &entry.path,
                "its owner is not a user or group id",
            )),
        };
        let (seconds, nanos) = entry.mtime;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanos.into(),
        };
        Ok(Self {
            owner: (Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)),
            mode: Mode::from_raw_mode(entry.mode),
            times: Timestamps {
                last_access: time,
                last_modification: time,
            },
            xattrs: entry
                .xattrs
                .iter()
                .filter(|(name, _)| is_allowed(name))
                .cloned()
                .collect(),
        })
    }

    /// The mode to create it with, where it has then all of the mode that it is to have: the kernel drops special bits now and then, and an
    /// attribute may have to be set before the mode forbids it.
    pub(crate) fn mode_at_once(&self, given: Given) -> Option<Mode> {
        let plain = self.mode.as_raw_mode() & 0o7000 == 0 && self.xattrs.is_empty();
        (plain && given.mode).then_some(self.mode)
    }

    /// Bytes of its extended attributes.
    pub(crate) fn bytes(&self) -> usize {
        let each = self.xattrs.iter();
        each.map(|(name, value)| name.len() + value.len() + 64)
            .sum()
    }

    /// Whether it has its owner from the start.
    pub(crate) fn owned(&self, given: Given) -> bool {
        given.owner == Some(self.owner)
    }

    /// What is left to set on a file that was created with [`Attributes::mode_at_once`].
    pub(crate) fn set_rest(
        &self,
        file: &OwnedFd,
        path: &[u8],
        rights: Rights,
        given: Given,
    ) -> Result<(), UnpackError> {
        if !self.owned(given) {
            self.set_owner(file, path, rights)?;
        }
        rustix::fs::futimens(file, &self.times).during("set its times", path)
    }

    /// Sets the times of what is at this spot itself, whatever it is.
    pub(crate) fn set_times(&self, spot: &Spot<'_>, path: &[u8]) -> Result<(), UnpackError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(&spot.dir, spot.name, &self.times, flags)
            .during("set its times", path)
    }

    /// Sets everything on an open file or directory. The owner comes first, since setting it clears capabilities and set-uid bits; the
    /// user's attributes come before the mode, which may forbid them; the mode before access lists, which refine it.
    pub(crate) fn set(
        &self,
        file: &OwnedFd,
        path: &[u8],
        rights: Rights,
    ) -> Result<(), UnpackError> {
        self.set_owner(file, path, rights)?;
        self.set_xattrs(file, path, rights, true)?;
        rustix::fs::fchmod(file, self.mode).during("set its mode", path)?;
        self.set_xattrs(file, path, rights, false)?;
        rustix::fs::futimens(file, &self.times).during("set its times", path)
    }

    fn set_owner(&self, file: &OwnedFd, path: &[u8], rights: Rights) -> Result<(), UnpackError> {
        let (uid, gid) = self.owner;
        self.owner_set(rustix::fs::fchown(file, Some(uid), Some(gid)), path, rights)
    }

    /// What it means that the owner could be set or not.
    fn owner_set(
        &self,
        set: rustix::io::Result<()>,
        path: &[u8],
        rights: Rights,
    ) -> Result<(), UnpackError> {
        match set {
            Err(Errno::PERM | Errno::INVAL) if !rights.exact_owners => Ok(()),
            Err(errno) => Err(not_owned(self.owner, path, errno)),
            Ok(()) => Ok(()),
        }
    }

    /// Sets the attributes of the user, or the others.
    fn set_xattrs(
        &self,
        file: &OwnedFd,
        path: &[u8],
        rights: Rights,
        users: bool,
    ) -> Result<(), UnpackError> {
        let xattrs = self.xattrs.iter();
        for (name, value) in xattrs.filter(|(name, _)| name.starts_with(b"user.") == users) {
            let name_os = std::ffi::OsStr::from_bytes(name);
            let set = rustix::fs::fsetxattr(file, name_os, value, XattrFlags::empty());
            check_xattr(set, name, rights).during("set an extended attribute", path)?;
        }
        Ok(())
    }

    /// As [`Attributes::set`] for what cannot be opened: symlinks, devices, FIFOs. `mode` says whether it has one of its own.
    pub(crate) fn set_at(
        &self,
        spot: &Spot<'_>,
        path: &[u8],
        mode: bool,
        rights: Rights,
        given: Given,
    ) -> Result<(), UnpackError> {
        let (uid, gid) = self.owner;
        if !self.owned(given) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let set = rustix::fs::chownat(&spot.dir, spot.name, Some(uid), Some(gid), flags);
            self.owner_set(set, path, rights)?;
        }
        if mode {
            // It was just made here as no symlink, and nobody else writes here.
            rustix::fs::chmodat(&spot.dir, spot.name, self.mode, AtFlags::empty())
                .during("set its mode", path)?;
        }
        if !self.xattrs.is_empty() {
            let by_name = by_name(spot, given).during("go to its directory", path)?;
            for (name, value) in &self.xattrs {
                let name_os = std::ffi::OsStr::from_bytes(name);
                let set = rustix::fs::lsetxattr(&by_name, name_os, value, XattrFlags::empty());
                check_xattr(set, name, rights).during("set an extended attribute", path)?;
            }
        }
        self.set_times(spot, path)
    }
}

/// A path to what is at this spot, for the call that takes no directory's descriptor: from the directory itself, where the thread can go there
/// alone, or through /proc.
fn by_name(spot: &Spot<'_>, given: Given) -> rustix::io::Result<PathBuf> {
    if given.directory {
        rustix::process::fchdir(&spot.dir)?;
        return Ok(spot.name.into());
    }
    let dir = PathBuf::from(format!("/proc/self/fd/{}", spot.dir.as_raw_fd()));
    Ok(dir.join(spot.name))
}

/// Which extended attributes an image may set. Not those that tell overlayfs what to show, nor those of the host's own policies.
fn is_allowed(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || matches!(
        name,
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
    )
}

fn not_owned((uid, gid): (Uid, Gid), path: &[u8], errno: Errno) -> UnpackError {
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    let why = match errno {
        Errno::INVAL => " (this user namespace does not map both)",
        _ => "",
    };
    UnpackError::Io {
        action: format!("{CHOWN} {uid}:{gid}{why}").into(),
        path: shown(path),
        source: errno.into(),
    }
}

/// A file system without extended attributes of some kind does not fail a pull, except where the image would then work differently.
fn check_xattr(
    result: rustix::io::Result<()>,
    name: &[u8],
    rights: Rights,
) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOTSUP) if name != b"security.capability" => Ok(()),
        // `user.` belongs to files and directories alone.
        Err(Errno::PERM) if rights.unprivileged || name.starts_with(b"user.") => Ok(()),
        // An access list names users and groups.
        Err(Errno::INVAL) if !rights.exact_owners && name.starts_with(b"system.") => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_never_speaks_to_overlayfs_or_to_the_hosts_policy() {
        for (name, want) in [
            ("user.mime_type", true),
            ("user.overlay.opaque", false),
            ("trusted.overlay.opaque", false),
            ("trusted.overlay.redirect", false),
            ("trusted.x", false),
            ("security.capability", true),
            ("security.selinux", false),
            ("security.ima", false),
            ("system.posix_acl_access", true),
            ("", false),
        ] {
            assert_eq!(is_allowed(name.as_bytes()), want, "{name}");
        }
    }
}
