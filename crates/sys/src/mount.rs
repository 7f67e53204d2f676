//! Mounts: overlay (of any number of layers), bind, unmount, and what is
//! mounted below a path.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::fs::{self, At as _, FsError};

/// Most of `mountinfo` that is read, in bytes.
const MOUNTINFO_LIMIT: u64 = 64 << 20;

/// An overlay mount.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    /// The read-only layers, top first. At least one; without `upper` a single
    /// one is mounted as a read-only bind instead.
    pub lower: &'a [PathBuf],
    /// Where changes go and the work directory beside it (same file system,
    /// empty); `None` for a read-only mount.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// Mounts an overlay on `target`, which must be an existing directory. Uses
/// the mount API of Linux 6.5 and later, which has no limit on the length of
/// all paths together; on older kernels `mount(2)`, whose limit is a page.
/// Root of a user namespace gets one that reads `user.overlay.` attributes.
pub fn overlay(spec: &Overlay<'_>, target: impl AsRef<Path>) -> Result<(), FsError> {
    let target = target.as_ref();
    if spec.lower.is_empty() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "no lower directory");
        return Err(FsError::new("mount an overlay on", target, error));
    }
    // The kernel answers a bare ENOENT or EINVAL for any of the directories,
    // so the one at fault is looked for before.
    for dir in spec.lower {
        need_dir(dir)?;
    }
    if let Some((upper, work)) = spec.upper {
        need_dir(upper)?;
        need_dir(work)?;
    } else if let [single] = spec.lower {
        return bind(
            single,
            target,
            Bind {
                read_only: true,
                recursive: false,
            },
        );
    }
    match overlay_new_api(spec, target) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => overlay_mount(spec, target),
        Err(error) => Err(FsError::new("mount an overlay on", target, error)),
        Ok(()) => Ok(()),
    }
}

fn need_dir(path: &Path) -> Result<(), FsError> {
    let meta = std::fs::metadata(path).at("use as an overlay directory", path)?;
    if meta.is_dir() {
        return Ok(());
    }
    let error = io::Error::from(io::ErrorKind::NotADirectory);
    Err(FsError::new("use as an overlay directory", path, error))
}

fn overlay_new_api(spec: &Overlay<'_>, target: &Path) -> rustix::io::Result<()> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", "towline")?;
    for dir in spec.lower {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", dir)?;
    }
    if let Some((upper, work)) = spec.upper {
        rustix::mount::fsconfig_set_string(&fs, "upperdir", upper)?;
        rustix::mount::fsconfig_set_string(&fs, "workdir", work)?;
    }
    if !crate::root::of_the_machine() {
        rustix::mount::fsconfig_set_flag(&fs, "userxattr")?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let attributes = if spec.upper.is_none() {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::mount::move_mount(
        &mount,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn overlay_mount(spec: &Overlay<'_>, target: &Path) -> Result<(), FsError> {
    let mut options = overlay_options(spec);
    if !crate::root::of_the_machine() {
        options.push(",userxattr");
    }
    let mut flags = MsFlags::empty();
    if spec.upper.is_none() {
        flags |= MsFlags::MS_RDONLY;
    }
    nix::mount::mount(
        Some("towline"),
        target,
        Some("overlay"),
        flags,
        Some(options.as_os_str()),
    )
    .at("mount an overlay on", target)
}

/// The option string of `mount(2)`; `:`, `,` and `\` in paths are escaped.
fn overlay_options(spec: &Overlay<'_>) -> OsString {
    let mut options = b"lowerdir=".to_vec();
    for (index, dir) in spec.lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        escape(dir, &mut options);
    }
    if let Some((upper, work)) = spec.upper {
        options.extend(b",upperdir=");
        escape(upper, &mut options);
        options.extend(b",workdir=");
        escape(work, &mut options);
    }
    OsString::from_vec(options)
}

fn escape(path: &Path, options: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

/// A read-only view of `dir` that is mounted nowhere and lives as long as the
/// handle (and what is opened through it): nobody can write through it or make
/// it writable. `empty` is any other directory, of which nothing is seen as
/// long as it is empty.
pub fn detached_read_only(
    dir: impl AsRef<Path>,
    empty: impl AsRef<Path>,
) -> Result<std::os::fd::OwnedFd, FsError> {
    let (dir, empty) = (dir.as_ref(), empty.as_ref());
    let make = || {
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&fs, "source", "towline")?;
        // Without an upper directory the kernel asks for two lower ones.
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", dir)?;
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", empty)?;
        rustix::mount::fsconfig_create(&fs)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().at("make a read-only view of", dir)
}

/// How to bind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bind {
    /// Make the new mount read-only (not the mounts below it).
    pub read_only: bool,
    /// Take along the mounts below the source.
    pub recursive: bool,
}

/// Makes `source` appear at `target` too. Both must exist and be of the same
/// kind (directory or not).
pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>, how: Bind) -> Result<(), FsError> {
    const NONE: Option<&str> = None;
    let (source, target) = (source.as_ref(), target.as_ref());
    let mut flags = MsFlags::MS_BIND;
    if how.recursive {
        flags |= MsFlags::MS_REC;
    }
    nix::mount::mount(Some(source), target, NONE, flags, NONE).map_err(|errno| FsError {
        action: "bind",
        path: source.into(),
        other: Some(target.into()),
        source: errno.into(),
    })?;
    if how.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(errno) = nix::mount::mount(NONE, target, NONE, flags, NONE) {
            // A writable bind where a read-only one was asked for must not stay.
            drop(unmount(target));
            return Err(FsError::new("make read-only", target, errno));
        }
    }
    Ok(())
}

/// Mounts a tmpfs of at most `size` bytes, mode 0755, no devices and no
/// set-uid programs.
pub fn tmpfs(target: impl AsRef<Path>, size: u64) -> Result<(), FsError> {
    let target = target.as_ref();
    nix::mount::mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some(format!("mode=0755,size={size}").as_str()),
    )
    .at("mount a tmpfs on", target)
}

/// Changes how many bytes a tmpfs holds.
pub fn resize_tmpfs(target: impl AsRef<Path>, size: u64) -> Result<(), FsError> {
    const NONE: Option<&str> = None;
    let target = target.as_ref();
    nix::mount::mount(
        NONE,
        target,
        NONE,
        MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some(format!("size={size}").as_str()),
    )
    .at("resize the tmpfs on", target)
}

/// Changes how many files, directories and links a tmpfs takes.
pub fn limit_tmpfs_inodes(target: impl AsRef<Path>, inodes: u64) -> Result<(), FsError> {
    const NONE: Option<&str> = None;
    let target = target.as_ref();
    nix::mount::mount(
        NONE,
        target,
        NONE,
        MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some(format!("nr_inodes={inodes}").as_str()),
    )
    .at("limit the inodes of the tmpfs on", target)
}

/// Stops mount events from and to other namespaces, for `target` and all
/// mounts below it.
pub fn make_private(target: impl AsRef<Path>) -> Result<(), FsError> {
    const NONE: Option<&str> = None;
    let target = target.as_ref();
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(NONE, target, NONE, flags, NONE).at("make private", target)
}

/// Unmounts what is mounted on `target` itself (a symlink is not followed),
/// and lets go of it lazily when it is in use. Not mounted, or not there, is
/// no error.
pub fn unmount(target: impl AsRef<Path>) -> Result<(), FsError> {
    let target = target.as_ref();
    match nix::mount::umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(errno) => Err(FsError::new("unmount", target, errno)),
    }
}

/// The mount points at and below `root` in this mount namespace, in the order
/// in which they can be unmounted: newest first.
pub fn mounts_under(root: impl AsRef<Path>) -> Result<Vec<PathBuf>, FsError> {
    let root = root.as_ref();
    let text = fs::read_bounded("/proc/thread-self/mountinfo", MOUNTINFO_LIMIT)?;
    let mut found: Vec<PathBuf> = mount_points(&text)
        .filter(|point| point.starts_with(root))
        .collect();
    found.reverse();
    Ok(found)
}

/// Unmounts everything at and below `root`; answers what was unmounted.
pub fn unmount_under(root: impl AsRef<Path>) -> Result<Vec<PathBuf>, FsError> {
    let points = mounts_under(root)?;
    for point in &points {
        unmount(point)?;
    }
    Ok(points)
}

/// The mount points of a `mountinfo` text, in its order.
fn mount_points(text: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
}

/// Undoes the kernel's `\040` escapes.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] = tail
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

/// The directory on a mount of its own that is attached nowhere and lasts as long as its descriptor: what is below can be made and written as
/// ever, but no device can be opened there and nothing run. Needs `CAP_SYS_ADMIN`, and Linux 5.12.
pub fn detached_without_devices(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(dir, "", flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    // SAFETY: the kernel reads a path that is empty and a structure of the
    // length that is given, both of which outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    nix::errno::Errno::result(answer)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_mount_namespace, need_root};

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text =
            b"36 35 98:0 / /mnt/a\\040b rw - ext4 /dev/sda rw\n37 36 0:1 / /mnt/c\\134d rw\n\n";
        let points: Vec<_> = mount_points(text).collect();
        assert_eq!(points, [Path::new("/mnt/a b"), Path::new("/mnt/c\\d")]);
    }

    #[test]
    fn option_string_escapes_separators() {
        let lower = [PathBuf::from("/a:b"), PathBuf::from("/c,d")];
        let spec = Overlay {
            lower: &lower,
            upper: Some((Path::new("/u"), Path::new("/w"))),
        };
        assert_eq!(
            overlay_options(&spec).to_str().unwrap(),
            r"lowerdir=/a\:b:/c\,d,upperdir=/u,workdir=/w"
        );
    }

    #[test]
    fn overlay_of_many_layers_shows_the_top_first_and_takes_writes() {
        if !need_root() {
            return;
        }
        in_mount_namespace(|| {
            let dir = tempfile::tempdir().unwrap();
            tmpfs(dir.path(), 16 << 20).unwrap();
            // Far more than the page that mount(2) takes.
            let lower: Vec<_> = (0..120)
                .map(|n| dir.path().join(format!("{n:03}-{}:", "x".repeat(100))))
                .collect();
            for (n, path) in lower.iter().enumerate() {
                fs::create_dir_all(path).unwrap();
                std::fs::write(path.join("who"), n.to_string()).unwrap();
            }
            let [upper, work, target] =
                ["upper", "work", "target"].map(|name| dir.path().join(name));
            for path in [&upper, &work, &target] {
                fs::create_dir_all(path).unwrap();
            }
            let spec = Overlay {
                lower: &lower,
                upper: Some((&upper, &work)),
            };
            overlay(&spec, &target).unwrap();
            assert_eq!(std::fs::read_to_string(target.join("who")).unwrap(), "0");
            std::fs::write(target.join("new"), "x").unwrap();
            assert!(upper.join("new").exists());
            assert_eq!(unmount_under(&target).unwrap(), [target.as_path()]);
            unmount(&target).unwrap();

            let read_only = Overlay {
                lower: &lower[..1],
                upper: None,
            };
            overlay(&read_only, &target).unwrap();
            assert!(std::fs::write(target.join("new"), "x").is_err());
            unmount(&target).unwrap();
            unmount(dir.path()).unwrap();
        });
    }

    #[test]
    fn a_missing_layer_is_named() {
        let lower = [PathBuf::from("/nonexistent/layer")];
        let spec = Overlay {
            lower: &lower,
            upper: None,
        };
        let error = overlay(&spec, "/tmp").unwrap_err();
        assert_eq!(
            error.to_string(),
            "use as an overlay directory /nonexistent/layer"
        );
    }
}
