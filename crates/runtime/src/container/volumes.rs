//! What a pod mounts into a container: paths of the node, and images.

use std::path::{Path, PathBuf};

use tonic::Status;
use towline_cri::v1;
use towline_sys::confined;
use towline_sys::fs;
use towline_sys::mount::{self, Overlay};
use towline_sys::task;

use crate::convert;
use crate::core::Core;
use crate::fault::Doing as _;
use crate::layout::ContainerDir;
use crate::record::MountRecord;
use crate::spec::mounts::{self, UserMount};

/// Most mounts of a container.
const MAX_MOUNTS: usize = 1000;

/// Checks the mounts, makes missing directories of the node (as every runtime does), and mounts images.
pub(crate) async fn prepare(
    core: &Core,
    asked: &[v1::Mount],
    id: &str,
    dir: &ContainerDir,
) -> Result<(Vec<UserMount>, Vec<MountRecord>), Status> {
    if asked.len() > MAX_MOUNTS {
        return Err(Status::invalid_argument(format!(
            "more than {MAX_MOUNTS} mounts"
        )));
    }
    let (mut mounts, mut records) = (Vec::new(), Vec::new());
    for (number, mount) in asked.iter().enumerate() {
        let destination = mounts::destination(&mount.container_path).ok_or_else(|| {
            Status::invalid_argument(format!(
                "the mount path {:?} is not an absolute path without `..`",
                mount.container_path
            ))
        })?;
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Status::unimplemented(
                "mounts with id mappings are not supported",
            ));
        }
        if mount.recursive_read_only {
            return Err(Status::unknown(
                "RROUnsupported: recursive read-only mounts are not supported",
            ));
        }
        let image = mount.image.as_ref().filter(|i| !i.image.is_empty());
        let (source, image) = match image {
            Some(image) => {
                let of_image = {
                    let owner = format!("{id}-{number}");
                    image_volume(core, mount, &image.image, &owner, dir.volume(number)).await
                };
                of_image.map_err(|s| {
                    Status::new(s.code(), format!("ImageVolumeMountFailed: {}", s.message()))
                })?
            }
            None => (host_path(&mount.host_path)?, String::new()),
        };
        if !mounts::may_cover(&destination, &source) {
            return Err(Status::invalid_argument(format!(
                "nothing can be mounted at {destination:?}, inside /proc"
            )));
        }
        let propagation = convert::propagation(mount.propagation);
        records.push(MountRecord {
            container_path: mount.container_path.clone(),
            host_path: mount.host_path.clone(),
            readonly: mount.readonly,
            propagation: mount.propagation,
            image,
        });
        mounts.push(UserMount {
            source,
            destination,
            read_only: mount.readonly,
            propagation,
        });
    }
    Ok((mounts, records))
}

/// The path with its symlinks resolved; a missing one becomes a directory.
fn host_path(path: &str) -> Result<PathBuf, Status> {
    let given = Path::new(path);
    if !given.is_absolute() {
        return Err(Status::invalid_argument(format!(
            "the host path {path:?} of a mount is not absolute"
        )));
    }
    if !given.exists() {
        fs::create_dir_all(given).doing(|| format!("make the host path {path:?} of a mount"))?;
    }
    given
        .canonicalize()
        .doing(|| format!("resolve the host path {path:?} of a mount"))
}

/// Mounts an image read-only, and finds the part of it that is asked for.
async fn image_volume(
    core: &Core,
    asked: &v1::Mount,
    name: &str,
    owner: &str,
    target: PathBuf,
) -> Result<(PathBuf, String), Status> {
    if !asked.readonly {
        return Err(Status::invalid_argument(
            "an image can only be mounted read-only",
        ));
    }
    let image = core
        .images
        .get(name)
        .ok_or_else(|| Status::not_found(format!("image {name:?} not found")))?;
    let lower = core.images.lower_dirs(&image);
    core.images.hold(owner, &image).await?;
    let sub_path = asked.image_sub_path.clone();
    let source = task::blocking("image-volume", move || {
        fs::create_dir_all(&target)?;
        mount::overlay(
            &Overlay {
                lower: &lower,
                upper: None,
            },
            &target,
        )?;
        if sub_path.is_empty() {
            return Ok(target);
        }
        // Opened below the image, so that a symlink in it leads nowhere else.
        let root = confined::Root::open(&target)?;
        let found = root.open_with(
            &sub_path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
        std::fs::read_link(&link).map_err(|e| fs::FsError::new("resolve", &target, e))
    })
    .await
    .doing(|| format!("mount image {name:?}"))?;
    Ok((source, image.id))
}
