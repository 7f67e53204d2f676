//! Making a container: its root, its identity, its spec.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonic::Status;
use towline_cri::v1;
use towline_shim_api::Namespaces;
use towline_sys::cgroup;
use towline_sys::confined;
use towline_sys::fs;
use towline_sys::mount::{self, Overlay};
use towline_sys::task;

use super::{devices, security, signal, volumes};
use crate::convert;
use crate::core::{Container, Core, Sandbox, container_name};
use crate::fault::Doing as _;
use crate::image_store::StoredImage;
use crate::layout::ContainerDir;
use crate::log_path;
use crate::record::{self, ContainerRecord, Mode, Phase, SandboxRecord};
use crate::shim::Connection;
use crate::spec::mounts::SandboxFiles;
use crate::spec::user::{self, User, Wishes};
use crate::spec::{self, SpecInput, capabilities, command, mounts};

/// Most that is read of the rootfs's `passwd` and `group`, in bytes.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// Makes a container; on failure nothing of it is left.
pub(crate) async fn create(
    core: &Arc<Core>,
    request: v1::CreateContainerRequest,
) -> Result<String, Status> {
    let config = request
        .config
        .ok_or_else(|| Status::invalid_argument("a container needs a config"))?;
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    let _gate = sandbox.gate.lock().await;
    let pod = sandbox.get();
    if !pod.ready {
        return Err(Status::failed_precondition(format!(
            "sandbox {:?} is not running",
            pod.id
        )));
    }
    let named = config.image.clone().unwrap_or_default();
    let image = core.images.get(&named.image).ok_or_else(|| {
        Status::not_found(format!(
            "failed to resolve image {:?}: not found",
            named.image
        ))
    })?;
    let mut record = new_record(&config, &pod, &image)?;
    let name = container_name(&record);
    core.reserve(&name, &record.id)?;
    let dir = core.layout.container(&record.id);
    match make(core, &config, &sandbox, &image, &mut record, &dir).await {
        Ok(()) => {
            let id = record.id.clone();
            core.insert_container(Arc::new(Container::new(record, dir)));
            Ok(id)
        }
        Err(status) => {
            core.release(&name);
            core.images.release(&record.id).await?;
            remove_files(&dir).await?;
            Err(status)
        }
    }
}

fn new_record(
    config: &v1::ContainerConfig,
    pod: &SandboxRecord,
    image: &StoredImage,
) -> Result<ContainerRecord, Status> {
    let metadata = config
        .metadata
        .as_ref()
        .filter(|m| !m.name.is_empty())
        .ok_or_else(|| Status::invalid_argument("a container needs metadata with a name"))?;
    let named = config.image.clone().unwrap_or_default();
    let resources = config.linux.as_ref().and_then(|l| l.resources.as_ref());
    Ok(ContainerRecord {
        version: record::VERSION,
        id: record::new_id(),
        sandbox: pod.id.clone(),
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        image: named.image,
        user_specified_image: named.user_specified_image,
        image_id: image.id.clone(),
        image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
        labels: convert::map(&config.labels),
        annotations: convert::map(&config.annotations),
        log: log_path::join(&pod.log_directory, &config.log_path)
            .refusing(|| format!("place the log of container {:?}", metadata.name))?,
        created_at: record::now(),
        started_at: 0,
        finished_at: 0,
        phase: Phase::Created,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        mounts: vec![],
        resources: resources.map(convert::resources).unwrap_or_default(),
        uid: 0,
        gid: 0,
        groups: vec![],
        stop_signal: signal::stop(config.stop_signal, &image.config.stop_signal),
        cri_stop_signal: config.stop_signal,
    })
}

async fn make(
    core: &Arc<Core>,
    config: &v1::ContainerConfig,
    sandbox: &Sandbox,
    image: &StoredImage,
    record: &mut ContainerRecord,
    dir: &ContainerDir,
) -> Result<(), Status> {
    let pod = sandbox.get();
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    security::profiles(security.seccomp.as_ref(), security.apparmor.as_ref())?;
    if config.tty || config.stdin {
        tracing::debug!(container = %record.id, "stdin and tty are not offered: attach is not supported");
    }
    core.images.hold(&record.id, image).await?;
    fs::create_dir_all_mode(&dir.state, 0o700)
        .doing(|| "make the container's directory".to_owned())?;
    // From here on a crash leaves a record by which the rest is found.
    record::write(&dir.record(), record).doing(|| "remember the container".to_owned())?;
    let lower = core.images.lower_dirs(image);
    mount_root(dir, lower).await?;
    let (mounts, kept) = volumes::prepare(core, &config.mounts, &record.id, dir).await?;
    record.mounts = kept;
    let root = dir.rootfs();
    let wishes = (security.clone(), image.config.user.clone());
    let user = task::blocking("user", move || find_user(&root, &wishes.0, &wishes.1)).await?;
    (record.uid, record.gid, record.groups) = (user.uid, user.gid, user.groups.clone());
    let connection = Connection::open(&sandbox.dir.socket())
        .await
        .doing(|| "ask the shim for the pod's namespaces".to_owned())?;
    let namespaces = namespaces(&pod, &security, &connection.hello().namespaces)?;
    let input = Making {
        core,
        config,
        security: &security,
        sandbox,
        pod: &pod,
        image,
        record,
        dir,
        user: &user,
    };
    let spec = input.spec(&mounts, namespaces)?;
    let text =
        serde_json::to_vec_pretty(&spec).doing(|| "write the container's spec".to_owned())?;
    fs::create_dir_all_mode(dir.bundle(), 0o700)
        .and_then(|()| fs::write_atomic_mode(dir.bundle().join("config.json"), &text, 0o600))
        .doing(|| "write the container's spec".to_owned())?;
    if let Some(log) = record.log.as_deref().and_then(Path::parent) {
        fs::create_dir_all(log).doing(|| "make the log's directory".to_owned())?;
    }
    record::write(&dir.record(), record).doing(|| "remember the container".to_owned())
}

/// Mounts the image's layers with a writable one on top.
async fn mount_root(dir: &ContainerDir, lower: Vec<PathBuf>) -> Result<(), Status> {
    let (upper, work, root) = (dir.upper(), dir.work(), dir.rootfs());
    task::blocking("rootfs", move || {
        for path in [&upper, &work, &root] {
            fs::create_dir_all(path)?;
        }
        // The root's own owner and mode come from the lowest layer, not from ours.
        fs::set_mode(&upper, 0o755)?;
        mount::overlay(
            &Overlay {
                lower: &lower,
                upper: Some((&upper, &work)),
            },
            &root,
        )
    })
    .await
    .doing(|| "mount the container's root".to_owned())
}

/// Looks the user up in the container's own files.
fn find_user(
    root: &Path,
    security: &v1::LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, Status> {
    let read = |path: &str| -> Result<String, Status> {
        let bytes = confined::Root::open(root)
            .and_then(|root| root.read_optional(path, MAX_ACCOUNTS))
            .doing(|| format!("read /{path} of the image"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let wishes = Wishes {
        run_as_user: security.run_as_user.map(|v| v.value),
        run_as_username: &security.run_as_username,
        run_as_group: security.run_as_group.map(|v| v.value),
        supplemental_groups: &security.supplemental_groups,
        strict: security.supplemental_groups_policy == v1::SupplementalGroupsPolicy::Strict as i32,
        image_user,
    };
    user::resolve(&wishes, &read("etc/passwd")?, &read("etc/group")?)
        .refusing(|| "find the container's user".to_owned())
}

/// The namespaces to make or to join.
fn namespaces(
    pod: &SandboxRecord,
    security: &v1::LinuxContainerSecurityContext,
    shared: &Namespaces,
) -> Result<Vec<(&'static str, Option<PathBuf>)>, Status> {
    let options = security.namespace_options.clone().unwrap_or_default();
    if options.pid == v1::NamespaceMode::Target as i32 {
        return Err(Status::unimplemented(
            "joining the process namespace of another container is not supported",
        ));
    }
    let mut all = vec![("mount", None), ("cgroup", None)];
    for (kind, path) in [
        ("network", &shared.network),
        ("ipc", &shared.ipc),
        ("uts", &shared.uts),
    ] {
        if let Some(path) = path {
            all.push((kind, Some(path.clone())));
        }
    }
    match convert::mode(options.pid) {
        Some(Mode::Node) => {}
        // A pod that shares its processes has a first one of its own.
        Some(Mode::Pod) if pod.pid == Mode::Pod => all.push(("pid", shared.pid.clone())),
        _ => all.push(("pid", None)),
    }
    Ok(all)
}

/// Everything that the spec is made from.
struct Making<'a> {
    core: &'a Core,
    config: &'a v1::ContainerConfig,
    security: &'a v1::LinuxContainerSecurityContext,
    sandbox: &'a Sandbox,
    pod: &'a SandboxRecord,
    image: &'a StoredImage,
    record: &'a ContainerRecord,
    dir: &'a ContainerDir,
    user: &'a User,
}

impl Making<'_> {
    fn spec(
        &self,
        user_mounts: &[mounts::UserMount],
        namespaces: Vec<(&'static str, Option<PathBuf>)>,
    ) -> Result<oci_spec::runtime::Spec, Status> {
        let name = &self.record.name;
        let security = self.security;
        let image = &self.image.config;
        let status = own_status()?;
        let bound = capabilities::bounding(&status);
        let wanted = security.capabilities.clone().unwrap_or_default();
        let refuse = || format!("make the spec of container {name:?}");
        let capabilities = capabilities::set(
            security.privileged,
            &wanted.add_capabilities,
            &wanted.drop_capabilities,
            bound,
        )
        .refusing(refuse)?;
        let ambient = capabilities::named(&wanted.add_ambient_capabilities).refusing(refuse)?;
        let envs: Vec<(String, String)> = self
            .config
            .envs
            .iter()
            .map(|e| (e.key.clone(), e.value.clone()))
            .collect();
        let (shm, dirs) = (self.shm(), &self.sandbox.dir);
        let (hosts, hostname, resolv_conf) = (dirs.hosts(), dirs.hostname(), dirs.resolv_conf());
        let files = SandboxFiles {
            hosts: &hosts,
            hostname: &hostname,
            resolv_conf: &resolv_conf,
            shm: &shm,
        };
        let devices = if security.privileged {
            devices::all()
        } else {
            devices::asked(&self.config.devices)
        };
        let hidden = |paths: &[String]| {
            if security.privileged {
                vec![]
            } else {
                paths.to_vec()
            }
        };
        let input = SpecInput {
            rootfs: &self.dir.rootfs(),
            read_only_root: security.readonly_rootfs,
            args: command::arguments(&self.config.command, &self.config.args, image)
                .refusing(refuse)?,
            env: command::environment(image, &envs, &self.pod.hostname, self.user.home.as_deref())
                .refusing(refuse)?,
            cwd: command::working_dir(&self.config.working_dir, image).refusing(refuse)?,
            user: self.user,
            ambient: ambient
                .into_iter()
                .filter(|a| capabilities.contains(a))
                .collect(),
            capabilities,
            no_new_privileges: security.no_new_privs,
            oom_score_adj: capabilities::oom_score(
                self.record.resources.oom_score_adj,
                own_oom_score()?,
                bound,
            ),
            privileged: security.privileged,
            mounts: mounts::all(
                &files,
                user_mounts,
                security.privileged,
                security.readonly_rootfs,
            ),
            root_propagation: mounts::root_propagation(user_mounts),
            masked: hidden(&masked(&security.masked_paths)),
            read_only: hidden(&read_only(&security.readonly_paths)),
            namespaces,
            cgroup: format!("{}/{}", self.pod.cgroup, self.record.id),
            devices: devices.refusing(refuse)?,
            resources: self
                .record
                .resources
                .oci(self.core.pids_limit, has_controller("hugetlb")),
        };
        spec::build(&input).doing(refuse)
    }

    fn shm(&self) -> PathBuf {
        if self.pod.ipc == Mode::Node {
            PathBuf::from("/dev/shm")
        } else {
            self.sandbox.dir.shm()
        }
    }
}

/// What the caller hides (a kubelet names its own list), and always what must stay hidden.
fn masked(asked: &[String]) -> Vec<String> {
    if asked.is_empty() {
        return spec::MASKED.map(str::to_owned).to_vec();
    }
    let mut all = asked.to_vec();
    let power = "/sys/devices/virtual/powercap";
    if !all.iter().any(|p| p == power) {
        all.push(power.to_owned());
    }
    all
}

fn read_only(asked: &[String]) -> Vec<String> {
    if asked.is_empty() {
        spec::READ_ONLY.map(str::to_owned).to_vec()
    } else {
        asked.to_vec()
    }
}

/// Whether a cgroup controller is there, in either version.
pub(crate) fn has_controller(name: &str) -> bool {
    let Ok(all) = cgroup::hierarchies() else {
        return false;
    };
    all.iter().any(|h| match &h.v1 {
        Some(controllers) => controllers.iter().any(|c| c == name),
        None => fs::read_to_string_bounded(h.mount.join("cgroup.controllers"), 4096)
            .is_ok_and(|list| list.split_whitespace().any(|c| c == name)),
    })
}

fn own_status() -> Result<String, Status> {
    fs::read_to_string_bounded("/proc/self/status", 64 << 10)
        .doing(|| "read the own capabilities".to_owned())
}

fn own_oom_score() -> Result<i64, Status> {
    let text = fs::read_to_string_bounded("/proc/self/oom_score_adj", 64)
        .doing(|| "read the own oom_score_adj".to_owned())?;
    text.trim()
        .parse()
        .doing(|| "read the own oom_score_adj".to_owned())
}

/// Unmounts and removes a container's files.
pub(crate) async fn remove_files(dir: &ContainerDir) -> Result<(), Status> {
    let paths = [dir.writable.clone(), dir.state.clone()];
    task::blocking("remove-container", move || {
        paths
            .iter()
            .try_for_each(|p| crate::sandbox::remove_tree(p))
    })
    .await
    .doing(|| format!("remove the files of container {}", dir.state.display()))
}
