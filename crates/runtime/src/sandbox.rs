//! The life of a sandbox: made, stopped, removed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use towline_cri::v1;
use towline_shim_api::{IpcMode, PidMode, SandboxConfig, VERSION};
use towline_sys::cgroup::Cgroup;
use towline_sys::fs;
use towline_sys::mount;
use towline_sys::ns::NetNs;
use towline_sys::task::{self, Kind};

use crate::container;
use crate::convert;
use crate::core::{Core, Sandbox, WATCH_STAGE, sandbox_name};
use crate::fault::Doing as _;
use crate::files::{self, Dns};
use crate::layout::SandboxDir;
use crate::record::{self, Mode, Phase, SandboxRecord};
use crate::shim;

/// Size of a pod's `/dev/shm`, in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// Most that is read of the node's `resolv.conf`, in bytes.
const MAX_RESOLV_CONF: u64 = 1 << 20;

/// How long a shim that was killed may seem to be alive, and how often it is looked at.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(5);
const CLEAN_UP_PAUSE: Duration = Duration::from_millis(50);

/// How long a pod's cgroup may take to become empty after its processes were killed.
const CGROUP_WAIT: Duration = Duration::from_secs(5);

/// Makes a sandbox; on failure nothing of it is left.
pub(crate) async fn run(
    core: &Arc<Core>,
    request: v1::RunPodSandboxRequest,
) -> Result<String, Status> {
    let config = request
        .config
        .ok_or_else(|| Status::invalid_argument("a sandbox needs a config"))?;
    let mut record = new_record(core, &config, &request.runtime_handler)?;
    let name = sandbox_name(&record);
    core.reserve(&name, &record.id)?;
    let dir = core.layout.sandbox(&record.id);
    match make(core, &config, &mut record, &dir).await {
        Ok(()) => {
            let id = record.id.clone();
            let sandbox = Arc::new(Sandbox::new(record, dir));
            core.insert_sandbox(sandbox.clone());
            watch(core, &sandbox);
            tracing::info!(sandbox = %id, pod = %name, "sandbox runs");
            Ok(id)
        }
        Err(status) => {
            if let Err(left) = tear_down(core, &record, &dir).await {
                tracing::warn!(sandbox = %record.id, error = %left.message(), "a failed sandbox leaves something behind");
            }
            remove_files(&dir).await?;
            core.release_address(&record);
            core.release(&name);
            Err(status)
        }
    }
}

fn new_record(
    core: &Core,
    config: &v1::PodSandboxConfig,
    handler: &str,
) -> Result<SandboxRecord, Status> {
    let invalid = |text: &str| Status::invalid_argument(text.to_owned());
    let metadata = config
        .metadata
        .as_ref()
        .filter(|m| !m.name.is_empty() && !m.uid.is_empty())
        .ok_or_else(|| invalid("a sandbox needs metadata with name and uid"))?;
    if !["", "towline"].contains(&handler) {
        return Err(Status::invalid_argument(format!(
            "no runtime for {handler:?} is configured"
        )));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    container::security::profiles(security.seccomp.as_ref(), security.apparmor.as_ref())?;
    let namespaces = security.namespace_options.unwrap_or_default();
    if namespaces
        .userns_options
        .is_some_and(|u| u.mode != v1::NamespaceMode::Node as i32)
    {
        return Err(invalid("user namespaces are not supported"));
    }
    let mode = |what: &str, number| {
        convert::mode(number).ok_or_else(|| {
            Status::invalid_argument(format!(
                "the {what} namespace mode {number} is not supported for a sandbox"
            ))
        })
    };
    if config.port_mappings.iter().any(|p| p.host_port > 0)
        && namespaces.network != v1::NamespaceMode::Node as i32
    {
        return Err(Status::unimplemented(
            "host ports are not supported; give the pod the host's network instead",
        ));
    }
    let id = record::new_id();
    let cgroup = match linux.cgroup_parent.as_str() {
        "" => format!("{}/pod-{id}", core.cgroup_parent.trim_end_matches('/')),
        parent => parent.trim_end_matches('/').to_owned(),
    };
    let exists = Cgroup::new(&cgroup)
        .refusing(|| format!("use the cgroup {cgroup:?}"))?
        .exists();
    Ok(SandboxRecord {
        version: record::VERSION,
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        runtime_handler: handler.to_owned(),
        labels: convert::map(&config.labels),
        annotations: convert::map(&config.annotations),
        created_at: record::now(),
        ready: true,
        network: mode("network", namespaces.network)?,
        pid: mode("pid", namespaces.pid)?,
        ipc: mode("ipc", namespaces.ipc)?,
        address: None,
        cgroup,
        owns_cgroup: !exists,
        shim_pid: 0,
        id,
    })
}

async fn make(
    core: &Arc<Core>,
    config: &v1::PodSandboxConfig,
    record: &mut SandboxRecord,
    dir: &SandboxDir,
) -> Result<(), Status> {
    let doing = |what: &str| format!("{what} of pod {}/{}", record.namespace, record.name);
    fs::create_dir_all_mode(&dir.0, 0o700).doing(|| doing("make the directory"))?;
    if record.hostname.is_empty() {
        record.hostname = node_name();
    }
    if record.network != Mode::Node {
        if !files::is_hostname(&record.hostname) {
            return Err(Status::invalid_argument(format!(
                "{:?} is not a host name",
                record.hostname
            )));
        }
        let network = core.network.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this runtime has no pod network; only pods with the host's network run",
            )
        })?;
        record.address = Some(core.take_address(network)?);
        remember(record, dir)?;
        let path = dir.netns();
        let netns = task::blocking("netns", move || NetNs::create(path))
            .await
            .doing(|| doing("make the network namespace"))?;
        if let Some(address) = record.address {
            network
                .connect(&netns, &host_link(&record.id), address)
                .await
                .doing(|| doing("connect the network"))?;
        }
    }
    remember(record, dir)?;
    write_files(config, record, dir)?;
    let ready = shim::start(
        &core.shim,
        &dir.shim(),
        &dir.shim_log(),
        &shim_config(config, record, dir),
    )
    .await
    .doing(|| doing("start the shim"))?;
    record.shim_pid = ready.pid;
    remember(record, dir)
}

/// Writes the record before anything is made, so that it is found again after a crash in the middle.
fn remember(record: &SandboxRecord, dir: &SandboxDir) -> Result<(), Status> {
    record::write(&dir.record(), record).doing(|| format!("remember sandbox {:?}", record.id))
}

fn shim_config(
    config: &v1::PodSandboxConfig,
    record: &SandboxRecord,
    dir: &SandboxDir,
) -> SandboxConfig {
    SandboxConfig {
        version: VERSION,
        id: record.id.clone(),
        hostname: (record.network != Mode::Node).then(|| record.hostname.clone()),
        network: match record.network {
            Mode::Node => towline_shim_api::Network::Host,
            _ => towline_shim_api::Network::Path(dir.netns()),
        },
        ipc: match record.ipc {
            Mode::Node => IpcMode::Host,
            _ => IpcMode::Pod,
        },
        pid: match record.pid {
            Mode::Pod => PidMode::Pod,
            Mode::Container => PidMode::Container,
            Mode::Node => PidMode::Host,
        },
        cgroup: record.owns_cgroup.then(|| record.cgroup.clone()),
        sysctls: config
            .linux
            .as_ref()
            .map(|l| convert::map(&l.sysctls))
            .unwrap_or_default(),
        socket: None,
        patience_ms: None,
    }
}

/// Writes the files that containers get, and mounts the pod's `/dev/shm`.
fn write_files(
    config: &v1::PodSandboxConfig,
    record: &SandboxRecord,
    dir: &SandboxDir,
) -> Result<(), Status> {
    let dns = config.dns_config.clone().unwrap_or_default();
    let dns = Dns {
        servers: dns.servers,
        searches: dns.searches,
        options: dns.options,
    };
    let host = fs::read_optional("/etc/resolv.conf", MAX_RESOLV_CONF)
        .doing(|| "read the node's resolv.conf".to_owned())?
        .unwrap_or_default();
    let resolv = files::resolv_conf(&dns, &String::from_utf8_lossy(&host))
        .refusing(|| "make the pod's resolv.conf".to_owned())?;
    let hosts = if record.network == Mode::Node {
        fs::read_optional("/etc/hosts", MAX_RESOLV_CONF)
            .doing(|| "read the node's hosts".to_owned())?
            .unwrap_or_default()
    } else {
        files::hosts(&record.hostname, record.address.map(Into::into)).into_bytes()
    };
    for (path, text) in [
        (dir.resolv_conf(), resolv.into_bytes()),
        (dir.hosts(), hosts),
        (
            dir.hostname(),
            format!("{}\n", record.hostname).into_bytes(),
        ),
    ] {
        fs::write_atomic(path, &text).doing(|| "write the pod's files".to_owned())?;
    }
    if record.ipc != Mode::Node {
        let shm = dir.shm();
        fs::create_dir_all(&shm)
            .and_then(|()| mount::tmpfs(&shm, SHM_SIZE))
            .and_then(|()| fs::set_mode(&shm, 0o1777))
            .doing(|| "mount the pod's /dev/shm".to_owned())?;
    }
    Ok(())
}

/// Stops a sandbox: its containers end, its processes, network and mounts go. Its record stays.
pub(crate) async fn stop(core: &Arc<Core>, id: &str) -> Result<(), Status> {
    let Some(sandbox) = core.find_sandbox(id) else {
        return Ok(());
    };
    let _gate = sandbox.gate.lock().await;
    stop_locked(core, &sandbox).await
}

async fn stop_locked(core: &Arc<Core>, sandbox: &Sandbox) -> Result<(), Status> {
    let before = sandbox.get();
    for container in core.containers_of(&before.id) {
        container::life::stop(core, &container, Duration::ZERO).await?;
    }
    over(core, sandbox).await
}

/// Removes a sandbox and its containers.
pub(crate) async fn remove(core: &Arc<Core>, id: &str) -> Result<(), Status> {
    let Some(sandbox) = core.find_sandbox(id) else {
        return Ok(());
    };
    let _gate = sandbox.gate.lock().await;
    stop_locked(core, &sandbox).await?;
    let record = sandbox.get();
    for container in core.containers_of(&record.id) {
        container::life::remove(core, &container).await?;
    }
    remove_files(&sandbox.dir).await?;
    core.forget_sandbox(&record);
    tracing::info!(sandbox = %record.id, "sandbox removed");
    Ok(())
}

/// Ends whatever runs or is mounted for a sandbox. Nothing there is no error, so it can be repeated.
pub(crate) async fn tear_down(
    core: &Core,
    record: &SandboxRecord,
    dir: &SandboxDir,
) -> Result<(), Status> {
    let doing = |what: &str| format!("{what} of sandbox {:?}", record.id);
    end_shim(core, record, dir).await?;
    let (owned, cgroup) = (record.owns_cgroup, record.cgroup.clone());
    task::blocking("cgroup", move || end_cgroup(owned, &cgroup))
        .await
        .doing(|| doing("remove the cgroup"))?;
    if record.network != Mode::Node
        && let Some(network) = &core.network
    {
        network
            .disconnect(&host_link(&record.id))
            .await
            .doing(|| doing("disconnect the network"))?;
    }
    let dir = dir.0.clone();
    task::blocking("unmount", move || mount::unmount_under(&dir))
        .await
        .doing(|| doing("unmount the files"))?;
    Ok(())
}

/// Ends the shim with all containers; what one that was killed has left goes too.
async fn end_shim(core: &Core, record: &SandboxRecord, dir: &SandboxDir) -> Result<(), Status> {
    if let Ok(connection) = shim::Connection::open(&dir.socket()).await {
        match connection.shutdown(Duration::ZERO).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(sandbox = %record.id, error = %task::chain(&error), "the shim did not end in order");
            }
        }
    }
    if !dir.shim().join(towline_shim_api::CONFIG_FILE).exists() {
        return Ok(());
    }
    // The kernel closes what a killed process had open one after the other: it may still seem to be alive.
    let end = tokio::time::Instant::now() + CLEAN_UP_WAIT;
    let cleaned = loop {
        match shim::clean_up(&core.shim, &dir.shim()).await {
            Err(_) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(CLEAN_UP_PAUSE).await;
            }
            cleaned => break cleaned,
        }
    };
    cleaned.doing(|| format!("clean up after the shim of sandbox {:?}", record.id))
}

/// Watches a sandbox's shim: when it is gone, the sandbox is over.
pub(crate) fn watch(core: &Arc<Core>, sandbox: &Arc<Sandbox>) {
    let (core, sandbox) = (core.clone(), sandbox.clone());
    let token = core.supervisor.stage_token(WATCH_STAGE);
    let name = format!("sandbox-{}", sandbox.get().id);
    let supervisor = core.supervisor.clone();
    supervisor.spawn_in(WATCH_STAGE, name, Kind::Background, async move {
        let closed = async {
            if let Ok(connection) = shim::Connection::open(&sandbox.dir.socket()).await {
                connection.closed().await;
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = closed => {}
        }
        let _gate = sandbox.gate.lock().await;
        let record = sandbox.get();
        if record.ready && !token.is_cancelled() {
            tracing::warn!(sandbox = %record.id, "the shim of a sandbox is gone");
            if let Err(status) = over(&core, &sandbox).await {
                tracing::warn!(sandbox = %record.id, error = %status.message(), "a sandbox whose shim is gone leaves something behind");
            }
        }
    });
}

/// Takes down what is left of a sandbox whose shim is gone; its containers have ended.
pub(crate) async fn over(core: &Arc<Core>, sandbox: &Sandbox) -> Result<(), Status> {
    let record = sandbox.get();
    let torn = tear_down(core, &record, &sandbox.dir).await;
    for container in core.containers_of(&record.id) {
        match container::life::last_words(&sandbox.dir.shim(), &container.get().id) {
            Some(state) if container.get().phase == Phase::Running => {
                container::life::finish(&container, &state).await?;
            }
            _ => container::life::lost(&container).await?,
        }
    }
    // What could not be taken down keeps its address, so that nobody else gets it; stopping it again tries again.
    let gone = torn.is_ok();
    if gone {
        core.release_address(&record);
    }
    let changed = sandbox.change(|r| {
        r.ready = false;
        r.address = r.address.filter(|_| !gone);
    });
    changed.await?;
    torn
}

fn end_cgroup(owned: bool, name: &str) -> Result<(), fs::FsError> {
    let cgroup = Cgroup::new(name)?;
    if owned && cgroup.exists() {
        cgroup.kill()?;
        cgroup.remove(CGROUP_WAIT)?;
    }
    Ok(())
}

async fn remove_files(dir: &SandboxDir) -> Result<(), Status> {
    let path = dir.0.clone();
    task::blocking("remove-sandbox", move || remove_tree(&path))
        .await
        .doing(|| format!("remove {}", dir.0.display()))
}

/// Removes a directory in which something may still be mounted, without going into the mounts.
pub(crate) fn remove_tree(path: &Path) -> Result<(), fs::FsError> {
    mount::unmount_under(path)?;
    fs::remove_dir_all(path)
}

/// The name of a pod's link on the node.
pub(crate) fn host_link(id: &str) -> String {
    format!("v{}", id.get(..12).unwrap_or(id))
}

fn node_name() -> String {
    fs::read_to_string_bounded("/proc/sys/kernel/hostname", 256)
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
