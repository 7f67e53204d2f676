//! Host devices for containers.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use towline_cri::v1;

use crate::spec::SpecDevice;
use crate::spec::mounts;

/// Most devices of a container.
const MAX_DEVICES: usize = 2048;

/// Deepest directory below `/dev` that is looked into.
const MAX_DEPTH: u32 = 6;

/// Why a device cannot be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("look at the device {0}")]
    Stat(String, #[source] std::io::Error),
    #[error("{0} is neither a device nor a directory with devices")]
    NoDevice(String),
    #[error("the container path {0:?} of a device is not an absolute path without `..`")]
    Path(String),
    #[error("the device permissions {0:?} are not a subset of rwm")]
    Permissions(String),
    #[error("more than {MAX_DEVICES} devices")]
    TooMany,
}

/// The devices that a pod asks for.
pub(crate) fn asked(devices: &[v1::Device]) -> Result<Vec<SpecDevice>, DeviceError> {
    let mut found = Vec::new();
    for device in devices {
        let access = match device.permissions.as_str() {
            "" => "rwm",
            text if text.chars().all(|c| "rwm".contains(c)) => text,
            text => return Err(DeviceError::Permissions(text.to_owned())),
        };
        let inside = mounts::destination(&device.container_path)
            .ok_or_else(|| DeviceError::Path(device.container_path.clone()))?;
        let before = found.len();
        collect(
            Path::new(&device.host_path),
            &inside,
            access,
            0,
            true,
            &mut found,
        )?;
        if found.len() == before {
            return Err(DeviceError::NoDevice(device.host_path.clone()));
        }
    }
    Ok(found)
}

/// Every device of the host, for a privileged container. What the container has of its own is left out.
pub(crate) fn all() -> Result<Vec<SpecDevice>, DeviceError> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), "/dev", "rwm", 0, false, &mut found)?;
    let own = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/console",
        "/dev/ptmx",
    ];
    found.retain(|d| !own.contains(&d.path.as_str()));
    Ok(found)
}

fn collect(
    host: &Path,
    inside: &str,
    access: &str,
    depth: u32,
    follow: bool,
    found: &mut Vec<SpecDevice>,
) -> Result<(), DeviceError> {
    let failed = |e| DeviceError::Stat(host.display().to_string(), e);
    // The path that the pod names may be a symlink; one below it is left alone.
    let meta = if follow {
        std::fs::metadata(host)
    } else {
        std::fs::symlink_metadata(host)
    };
    let meta = meta.map_err(failed)?;
    if meta.is_dir() {
        let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"];
        if depth >= MAX_DEPTH || own.contains(&inside) {
            return Ok(());
        }
        for entry in std::fs::read_dir(host).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{inside}/{name}");
            match collect(&entry.path(), &path, access, depth + 1, false, found) {
                // Devices come and go.
                Err(DeviceError::Stat(_, e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                collected => collected?,
            }
        }
        return Ok(());
    }
    let kind = match meta.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return Ok(()),
    };
    if found.len() >= MAX_DEVICES {
        return Err(DeviceError::TooMany);
    }
    let number = meta.rdev();
    found.push(SpecDevice {
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, inside: &str, permissions: &str) -> v1::Device {
        v1::Device {
            container_path: inside.to_owned(),
            host_path: host.to_owned(),
            permissions: permissions.to_owned(),
        }
    }

    #[test]
    fn a_device_by_its_numbers() {
        let found = asked(&[device("/dev/null", "/dev/void", "rw")]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].major, found[0].minor, found[0].kind), (1, 3, 'c'));
        assert_eq!(
            (found[0].path.as_str(), found[0].access.as_str()),
            ("/dev/void", "rw")
        );
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (host, inside, permissions) in [
            ("/etc/passwd", "/dev/x", "rw"),
            ("/dev/does-not-exist", "/dev/x", "rw"),
            ("/dev/null", "dev/x", "rw"),
            ("/dev/null", "/dev/../etc", "rw"),
            ("/dev/null", "/dev/x", "rx"),
        ] {
            assert!(
                asked(&[device(host, inside, permissions)]).is_err(),
                "{host} {inside} {permissions}"
            );
        }
    }
}
