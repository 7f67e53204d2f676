//! Volumes as a container sees them.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use rustix::fs::{Mode, OFlags};
use towline_cri::v1::{Mount, MountPropagation};
use towline_sys::confined::Root;
use towline_sys::mount::{self, Bind};

use super::Paths;
use crate::env::expand::expand;
use crate::view;

/// The mounts of a container; `pod_dir` holds what a sub path needs. An error is Kubernetes' text.
pub(crate) async fn of(
    pod: &Pod,
    container: &Container,
    paths: &Paths,
    pod_dir: &Path,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(path) = paths.get(&wanted.name) else {
            return Err(format!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                wanted.name, container.name
            ));
        };
        let host_path = match sub_path(wanted, env)? {
            None => path.clone(),
            Some(inside) => {
                let at = pod_dir
                    .join("volume-subpaths")
                    .join(&wanted.name)
                    .join(&container.name)
                    .join(index.to_string());
                let (volume, shown) = (path.clone(), inside.clone());
                towline_sys::task::blocking("sub-path", move || pin(&volume, &inside, &at))
                    .await
                    .map_err(|error| {
                        format!("failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {shown}: {error}", wanted.name, container.name)
                    })?
            }
        };
        mounts.push(mount_of(pod, wanted, &host_path));
    }
    Ok(mounts)
}

fn mount_of(pod: &Pod, wanted: &VolumeMount, host_path: &Path) -> Mount {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let source = volumes.into_iter().find(|v| v.name == wanted.name);
    // What the kubelet writes itself is never written by a container.
    let managed = source.is_some_and(|v| {
        v.secret.is_some()
            || v.config_map.is_some()
            || v.projected.is_some()
            || v.downward_api.is_some()
    });
    let propagation = match wanted.mount_propagation.as_deref() {
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        _ => MountPropagation::PropagationPrivate,
    };
    Mount {
        container_path: if wanted.mount_path.starts_with('/') {
            wanted.mount_path.clone()
        } else {
            format!("/{}", wanted.mount_path)
        },
        host_path: host_path.display().to_string(),
        readonly: managed || wanted.read_only == Some(true),
        propagation: propagation.into(),
        ..Mount::default()
    }
}

fn sub_path(wanted: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    let given = wanted.sub_path.as_deref().filter(|p| !p.is_empty());
    let expression = wanted.sub_path_expr.as_deref().filter(|p| !p.is_empty());
    let path = match (given, expression) {
        (Some(path), _) => path.to_owned(),
        (None, Some(expression)) => expand(expression, &|name| {
            env.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        }),
        (None, None) => return Ok(None),
    };
    if path.starts_with('/') || Path::new(&path).components().any(|c| c.as_os_str() == "..") {
        return Err(format!(
            "subPath \"{path}\" must not be an absolute path or hold \"..\""
        ));
    }
    Ok(Some(path))
}

/// Resolves `inside` below the volume without leaving it, and pins what it finds by a bind mount: the container that owns
/// the volume may exchange the path for a link at any time, but not what is mounted.
fn pin(volume: &Path, inside: &str, at: &Path) -> Result<PathBuf, String> {
    let show = |error: towline_sys::fs::FsError| towline_sys::task::chain(&error);
    let root = Root::open(volume).map_err(show)?;
    let found = match root.open_with(inside, OFlags::PATH, Mode::empty()) {
        Ok(found) => found,
        Err(error) if error.is_not_found() => root.mkdir_all(inside, 0o750).map_err(show)?,
        Err(error) => return Err(show(error)),
    };
    mount::unmount(at).map_err(show)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let is_dir = std::fs::metadata(&source)
        .map_err(|e| e.to_string())?
        .is_dir();
    if is_dir {
        towline_sys::fs::create_dir_all(at).map_err(show)?;
    } else {
        if let Some(parent) = at.parent() {
            towline_sys::fs::create_dir_all(parent).map_err(show)?;
        }
        std::fs::File::create(at).map_err(|e| e.to_string())?;
    }
    mount::bind(
        &source,
        at,
        Bind {
            read_only: false,
            recursive: true,
        },
    )
    .map_err(show)?;
    Ok(at.to_path_buf())
}

/// Whether the container mounts something at this path itself.
pub(crate) fn has(container: &Container, path: &str) -> bool {
    container
        .volume_mounts
        .iter()
        .flatten()
        .any(|m| m.mount_path.trim_end_matches('/') == path)
}

/// The pod's own files for one container.
pub(crate) fn container_dir(pod_dir: &Path, container: &str) -> PathBuf {
    pod_dir.join("containers").join(container)
}

/// The managed hosts file of a pod.
pub(crate) fn hosts_file(
    pod: &Pod,
    ips: &[String],
    hostname: &str,
    domain: &str,
    host: &str,
) -> String {
    let mut text = if view::host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
        for ip in ips {
            let names = if domain.is_empty() {
                hostname.to_owned()
            } else {
                format!("{hostname}.{domain}\t{hostname}")
            };
            text.push_str(&[ip, "\t", &names, "\n"].concat());
        }
        text
    };
    let aliases = pod
        .spec
        .iter()
        .flat_map(|s| s.host_aliases.iter().flatten());
    for (index, alias) in aliases.enumerate() {
        if index == 0 {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias
            .hostnames
            .iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("\t");
        text.push_str(&[&alias.ip, "\t", &names, "\n"].concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_stays_inside() {
        let mount = |path: &str| VolumeMount {
            sub_path: Some(path.into()),
            ..VolumeMount::default()
        };
        assert_eq!(sub_path(&mount("a/b"), &[]).unwrap().unwrap(), "a/b");
        assert!(sub_path(&mount("../a"), &[]).is_err());
        assert!(sub_path(&mount("/a"), &[]).is_err());
        let expression = VolumeMount {
            sub_path_expr: Some("$(POD)/x".into()),
            ..VolumeMount::default()
        };
        let env = [("POD".to_owned(), "p".to_owned())];
        assert_eq!(sub_path(&expression, &env).unwrap().unwrap(), "p/x");
        let escape = [("POD".to_owned(), "..".to_owned())];
        assert!(sub_path(&expression, &escape).is_err());
    }

    #[test]
    fn a_link_out_of_the_volume_is_not_followed() {
        if !towline_sys::testing::need_root() {
            return;
        }
        towline_sys::testing::in_mount_namespace(|| {
            let root = tempfile::tempdir().unwrap();
            let (volume, outside) = (root.path().join("v"), root.path().join("outside"));
            std::fs::create_dir(&volume).unwrap();
            std::fs::create_dir(&outside).unwrap();
            std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
            let at = root.path().join("at");
            assert!(pin(&volume, "link", &at).is_err());
            std::fs::create_dir(volume.join("real")).unwrap();
            std::fs::write(volume.join("real/f"), "x").unwrap();
            pin(&volume, "real", &at).unwrap();
            assert_eq!(std::fs::read_to_string(at.join("f")).unwrap(), "x");
            mount::unmount(&at).unwrap();
        });
    }
}
