//! Figures of containers and sandboxes.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use towline_cri::v1;
use towline_sys::task;

use crate::container::life;
use crate::convert;
use crate::core::{Container, Core, Sandbox};
use crate::network;
use crate::record::{self, Mode, Phase};
use crate::sandbox::host_link;

/// Most files that are counted of a writable layer; more are left out of the figure.
const MAX_FILES: usize = 1_000_000;

fn value(number: Option<u64>) -> Option<v1::UInt64Value> {
    number.map(|value| v1::UInt64Value { value })
}

/// Figures of a container; those of its cgroup are left out while it does not run.
pub(crate) async fn container(core: &Core, container: &Container) -> v1::ContainerStats {
    let record = container.get();
    let mut stats = v1::ContainerStats {
        attributes: Some(convert::container_attributes(&record)),
        ..Default::default()
    };
    if record.phase == Phase::Running
        && let Ok(mut connection) = life::connect(core, &record).await
        && let Ok(found) = connection.stats(&record.id).await
    {
        let available = found
            .memory_limit
            .zip(found.memory_working_set)
            .map(|(limit, used)| limit.saturating_sub(used));
        stats.cpu = Some(v1::CpuUsage {
            timestamp: found.timestamp,
            usage_core_nano_seconds: value(found.cpu_usage_ns),
            ..Default::default()
        });
        stats.memory = Some(v1::MemoryUsage {
            timestamp: found.timestamp,
            working_set_bytes: value(found.memory_working_set),
            available_bytes: value(available),
            usage_bytes: value(found.memory_usage),
            rss_bytes: value(found.memory_rss),
            page_faults: value(found.page_faults),
            major_page_faults: value(found.major_page_faults),
            psi: None,
        });
    }
    let (used, inodes) = disk_use(container.dir.upper()).await;
    stats.writable_layer = Some(v1::FilesystemUsage {
        timestamp: record::now(),
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: core.layout.writable().to_string_lossy().into_owned(),
        }),
        used_bytes: value(Some(used)),
        inodes_used: value(Some(inodes)),
    });
    stats
}

/// Figures of a sandbox: the sum of its containers, and its network.
pub(crate) async fn sandbox(core: &Core, sandbox: &Sandbox) -> v1::PodSandboxStats {
    let record = sandbox.get();
    let mut containers = Vec::new();
    for one in core.containers_of(&record.id) {
        containers.push(container(core, &one).await);
    }
    let now = record::now();
    let sum = |figures: Vec<Option<u64>>| -> Option<u64> {
        let known: Vec<u64> = figures.into_iter().flatten().collect();
        (!known.is_empty()).then(|| known.iter().sum())
    };
    let get = |v: &Option<v1::UInt64Value>| v.as_ref().map(|v| v.value);
    let cpu = sum(containers
        .iter()
        .map(|c| c.cpu.as_ref().and_then(|c| get(&c.usage_core_nano_seconds)))
        .collect());
    let memory = |field: fn(&v1::MemoryUsage) -> &Option<v1::UInt64Value>| {
        value(sum(containers
            .iter()
            .map(|c| c.memory.as_ref().and_then(|m| get(field(m))))
            .collect()))
    };
    let counters = match record.network {
        Mode::Node => None,
        _ => network::counters(&host_link(&record.id)).await,
    };
    let linux = v1::LinuxPodSandboxStats {
        cpu: Some(v1::CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(cpu),
            ..Default::default()
        }),
        memory: Some(v1::MemoryUsage {
            timestamp: now,
            working_set_bytes: memory(|m| &m.working_set_bytes),
            usage_bytes: memory(|m| &m.usage_bytes),
            rss_bytes: memory(|m| &m.rss_bytes),
            ..Default::default()
        }),
        network: counters.map(|c| v1::NetworkUsage {
            timestamp: now,
            default_interface: Some(v1::NetworkInterfaceUsage {
                name: "eth0".to_owned(),
                rx_bytes: value(Some(c.rx_bytes)),
                rx_errors: value(Some(c.rx_errors)),
                tx_bytes: value(Some(c.tx_bytes)),
                tx_errors: value(Some(c.tx_errors)),
            }),
            interfaces: vec![],
        }),
        containers,
        ..Default::default()
    };
    v1::PodSandboxStats {
        attributes: Some(convert::sandbox_attributes(&record)),
        linux: Some(linux),
    }
}

/// Bytes and inodes below a directory, on its own file system; a file with several names counts once.
pub(crate) async fn disk_use(path: PathBuf) -> (u64, u64) {
    task::blocking("disk-use", move || count(&path)).await
}

fn count(path: &Path) -> (u64, u64) {
    let Ok(device) = std::fs::symlink_metadata(path).map(|m| m.dev()) else {
        return (0, 0);
    };
    let (mut bytes, mut seen, mut left) = (0, HashSet::new(), vec![path.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.dev() != device || seen.len() >= MAX_FILES || !seen.insert(meta.ino()) {
            continue;
        }
        bytes += meta.blocks() * 512;
        if meta.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            left.extend(entries.flatten().map(|e| e.path()));
        }
    }
    (bytes, u64::try_from(seen.len()).unwrap_or(u64::MAX))
}
