//! Volumes of a pod: made before its containers, kept current, removed after them.

mod atomic;
mod content;
mod host_path;
pub(crate) mod mounts;
mod token;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use towline_pod::quantity;
use towline_sys::fs::FsError;
use towline_sys::{fs, mount};

pub(crate) use self::token::Tokens;
use crate::clock::Clock;
use crate::env::field::NodeFacts;
use crate::sources::Sources;
use crate::view;

/// Size of a memory volume without a limit, in bytes.
const MEMORY_DEFAULT: u64 = 64 * 1024 * 1024;

/// A volume that cannot be made: its name and Kubernetes' text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {text}")]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    pub(crate) text: String,
}

/// Path on the host by the volume's name.
pub(crate) type Paths = BTreeMap<String, PathBuf>;

/// Makes volumes below one root.
pub(crate) struct Volumes {
    root: PathBuf,
    sources: Sources,
    tokens: Tokens,
    clock: Clock,
}

impl Volumes {
    /// Volumes below `root/pods`.
    pub(crate) fn new(root: PathBuf, sources: Sources, tokens: Tokens, clock: Clock) -> Self {
        Self {
            root,
            sources,
            tokens,
            clock,
        }
    }

    /// The directory of one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Uids of pods that have a directory here.
    pub(crate) fn pods_on_disk(&self) -> Vec<String> {
        fs::read_dir_names(self.root.join("pods"), 100_000)
            .map(|names| {
                let names = names.into_iter();
                names
                    .filter_map(|name| PathBuf::from(name).to_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Makes every volume of the pod, or brings it up to date.
    pub(crate) async fn set_up(&self, pod: &Pod, facts: &NodeFacts) -> Result<Paths, VolumeError> {
        let mut paths = Paths::new();
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        for volume in volumes {
            let path = self
                .set_up_one(pod, volume, facts)
                .await
                .map_err(|text| VolumeError {
                    volume: volume.name.clone(),
                    text,
                })?;
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &NodeFacts,
    ) -> Result<PathBuf, String> {
        if let Some(source) = &volume.host_path {
            let (path, kind) = (
                PathBuf::from(&source.path),
                source.type_.clone().unwrap_or_default(),
            );
            return towline_sys::task::blocking("host-path", move || {
                host_path::check(&path, &kind)
            })
            .await;
        }
        let kind = kind(volume)
            .ok_or_else(|| "the volume's type is not supported by this node".to_owned())?;
        let directory = self
            .pod_dir(view::uid(pod))
            .join("volumes")
            .join(format!("kubernetes.io~{kind}"))
            .join(&volume.name);
        let gid = fs_group(pod);
        if let Some(source) = volume.empty_dir.clone() {
            let path = directory.clone();
            towline_sys::task::blocking("empty-dir", move || empty_dir(&path, &source, gid))
                .await
                .map_err(|error| towline_sys::task::chain(&error))?;
            return Ok(directory);
        }
        let context = content::Context {
            pod,
            facts,
            sources: &self.sources,
            tokens: &self.tokens,
            now: self.clock.now(),
            gid,
        };
        let files = content::files(&context, volume).await?;
        let (path, stamp) = (
            directory.clone(),
            self.clock.now().as_nanosecond().to_string(),
        );
        towline_sys::task::blocking("volume-files", move || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            atomic::write(&path, &files, gid, &stamp)
        })
        .await
        .map_err(|error| format!("write {}: {error}", directory.display()))?;
        Ok(directory)
    }

    /// Removes everything of a pod. What is still mounted there is let go first; if that fails nothing is removed.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), FsError> {
        self.tokens.forget(uid);
        let directory = self.pod_dir(uid);
        towline_sys::task::blocking("volumes-remove", move || {
            if !directory.exists() {
                return Ok(());
            }
            mount::unmount_under(&directory)?;
            if let Some(left) = mount::mounts_under(&directory)?.first() {
                let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
                return Err(FsError::new("unmount", left, busy));
            }
            fs::remove_dir_all(&directory)
        })
        .await
    }

    /// Unmounts the volumes of all pods; their directories stay.
    pub(crate) async fn unmount_all(&self) -> Result<(), FsError> {
        let pods = self.root.join("pods");
        towline_sys::task::blocking("volumes-unmount", move || {
            mount::unmount_under(&pods).map(drop)
        })
        .await
    }
}

fn kind(volume: &Volume) -> Option<&'static str> {
    if volume.empty_dir.is_some() {
        Some("empty-dir")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.projected.is_some() {
        Some("projected")
    } else {
        None
    }
}

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, gid: Option<u32>) -> Result<(), FsError> {
    let fresh = !path.exists();
    fs::create_dir_all(path)?;
    if source.medium.as_deref() == Some("Memory")
        && !mount::mounts_under(path)?.iter().any(|m| m == path)
    {
        let limit = source
            .size_limit
            .as_ref()
            .and_then(|q| quantity::milli(&q.0));
        let size = limit.map_or(MEMORY_DEFAULT, |milli| {
            quantity::units(milli).unsigned_abs()
        });
        mount::tmpfs(path, size)?;
    } else if !fresh {
        return Ok(());
    }
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))
            .map_err(|e| FsError::new("change owner", path, e))?;
        return fs::set_mode(path, 0o2777);
    }
    fs::set_mode(path, 0o777)
}
