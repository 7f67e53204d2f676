//! The runtime's state, listed once a second and when somebody waits for it: what each pod has there, and which pods have changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towline_cri::v1;
use tracing::{debug, warn};

use crate::cri::{Cri, CriError};
use crate::view::{Instance, PodView, Sandbox, State, key};

const PERIOD: Duration = Duration::from_secs(1);

/// The latest view of each pod.
#[derive(Debug)]
pub(crate) struct Pleg {
    cri: Cri,
    pods: RwLock<HashMap<String, Arc<PodView>>>,
    relisted: watch::Sender<Option<Instant>>,
    wanted: Notify,
}

/// Ids and states of what a pod has; a difference means that the pod is inspected.
type Outline = BTreeMap<String, i32>;

impl Pleg {
    /// A view that is empty until the first listing.
    pub(crate) fn new(cri: Cri) -> Arc<Self> {
        Arc::new(Self {
            cri,
            pods: RwLock::default(),
            relisted: watch::Sender::new(None),
            wanted: Notify::new(),
        })
    }

    /// Lists until `stop`; uids of pods that changed go to `changed`.
    pub(crate) async fn run(&self, changed: mpsc::Sender<String>, stop: CancellationToken) {
        let mut outlines = HashMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.wanted.notified() => {}
                () = stop.cancelled() => return,
            }
            let start = Instant::now();
            match self.relist(&mut outlines).await {
                Ok(pods) => {
                    failing = false;
                    self.relisted.send_replace(Some(start));
                    for uid in pods {
                        if changed.send(uid).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, "the runtime cannot be listed");
                }
                Err(_) => {}
            }
        }
    }

    /// Whether a listing has succeeded, and when the last one began.
    pub(crate) fn last(&self) -> Option<Instant> {
        *self.relisted.borrow()
    }

    /// Waits for a listing that began after `than`.
    pub(crate) async fn newer(&self, than: Instant) {
        let mut relisted = self.relisted.subscribe();
        // The sender lives as long as self.
        drop(relisted.wait_for(|at| at.is_some_and(|at| at > than)).await);
    }

    /// Asks for a listing at once and waits for it.
    pub(crate) async fn list_now(&self) {
        let now = Instant::now();
        self.wanted.notify_one();
        self.newer(now).await;
    }

    /// What a pod has in the runtime.
    pub(crate) fn view(&self, uid: &str) -> Arc<PodView> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).cloned().unwrap_or_default()
    }

    /// Uids of all pods that have anything in the runtime.
    pub(crate) fn uids(&self) -> Vec<String> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.keys().cloned().collect()
    }

    async fn relist(
        &self,
        outlines: &mut HashMap<String, Outline>,
    ) -> Result<Vec<String>, CriError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.cri.sandboxes(), self.cri.containers())?;
        let mut found: HashMap<String, Outline> = HashMap::new();
        for sandbox in &sandboxes {
            if let Some(uid) = sandbox.labels.get(key::POD_UID) {
                let outline = found.entry(uid.clone()).or_default();
                outline.insert(format!("s{}", sandbox.id), sandbox.state);
            }
        }
        for container in &containers {
            if let Some(uid) = container.labels.get(key::POD_UID) {
                let outline = found.entry(uid.clone()).or_default();
                outline.insert(format!("c{}", container.id), container.state);
            }
        }
        let owners: HashMap<&str, &str> = containers
            .iter()
            .map(|c| (c.id.as_str(), c.pod_sandbox_id.as_str()))
            .collect();
        let gone: Vec<String> = outlines
            .keys()
            .filter(|uid| !found.contains_key(*uid))
            .cloned()
            .collect();
        let mut changed = gone.clone();
        for uid in &gone {
            outlines.remove(uid);
            self.write().remove(uid);
        }
        for (uid, outline) in found {
            if outlines.get(&uid) == Some(&outline) {
                continue;
            }
            match self.inspect(&outline, &owners).await {
                Ok(view) => {
                    self.write().insert(uid.clone(), Arc::new(view));
                    outlines.insert(uid.clone(), outline);
                    changed.push(uid);
                }
                // Inspected again at the next listing.
                Err(error) => debug!(uid, %error, "a pod cannot be inspected"),
            }
        }
        Ok(changed)
    }

    async fn inspect(
        &self,
        outline: &Outline,
        owners: &HashMap<&str, &str>,
    ) -> Result<PodView, CriError> {
        let mut view = PodView::default();
        for id in outline.keys() {
            if let Some(id) = id.strip_prefix('s') {
                match self.cri.sandbox_status(id).await {
                    Ok(status) => {
                        if let Some(metadata) = &status.metadata {
                            view.name.clone_from(&metadata.name);
                            view.namespace.clone_from(&metadata.namespace);
                        }
                        view.sandboxes.push(sandbox(status));
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            } else if let Some(id) = id.strip_prefix('c') {
                match self.cri.container_status(id).await {
                    Ok(status) => {
                        let owner = owners.get(id).copied().unwrap_or_default();
                        view.containers
                            .push(with_message(instance(status, owner)).await);
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        view.sort();
        Ok(view)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Arc<PodView>>> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn some_time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| time(nanos))
}

pub(crate) fn sandbox(status: v1::PodSandboxStatus) -> Sandbox {
    let ready = status.state() == v1::PodSandboxState::SandboxReady;
    let network = status.network.unwrap_or_default();
    let others = network.additional_ips.into_iter().map(|ip| ip.ip);
    Sandbox {
        id: status.id,
        ready,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        created: time(status.created_at),
        ips: std::iter::once(network.ip)
            .chain(others)
            .filter(|ip| !ip.is_empty())
            .collect(),
    }
}

fn instance(status: v1::ContainerStatus, sandbox: &str) -> Instance {
    let state = match status.state() {
        v1::ContainerState::ContainerCreated => State::Created,
        v1::ContainerState::ContainerRunning => State::Running,
        v1::ContainerState::ContainerExited => State::Exited,
        v1::ContainerState::ContainerUnknown => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let message_path = annotation(key::MESSAGE_PATH);
    let message_file = status
        .mounts
        .iter()
        .find(|mount| !message_path.is_empty() && mount.container_path == message_path)
        .map(|mount| mount.host_path.clone())
        .unwrap_or_default();
    Instance {
        name: metadata.name,
        sandbox: sandbox.to_owned(),
        state,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        created: time(status.created_at),
        started: some_time(status.started_at),
        finished: some_time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        restarts: annotation(key::RESTARTS)
            .parse()
            .unwrap_or(metadata.attempt),
        hash: annotation(key::HASH),
        message_from_logs: annotation(key::MESSAGE_POLICY) == "FallbackToLogsOnError",
        grace_seconds: annotation(key::GRACE).parse().ok(),
        log_path: status.log_path,
        message_file,
        id: status.id,
    }
}

/// Bytes of a termination message that are kept.
const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: usize = 80;
const LOG_TAIL: u64 = 16 * 1024;

/// Adds what the container left as its termination message.
async fn with_message(mut instance: Instance) -> Instance {
    if instance.state != State::Exited {
        return instance;
    }
    let (file, log) = (instance.message_file.clone(), instance.log_path.clone());
    let from_logs = instance.message_from_logs && instance.exit_code != 0;
    let message = towline_sys::task::blocking("termination-message", move || {
        let left = file_message(&file);
        if left.is_empty() && from_logs {
            log_message(&log)
        } else {
            left
        }
    });
    let message = message.await;
    if !message.is_empty() {
        instance.message = message;
    }
    instance
}

/// The beginning of the file; a container may have put anything there.
fn file_message(path: &str) -> String {
    use std::io::Read as _;
    let meta = std::fs::symlink_metadata(path);
    if !meta.is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of the log.
fn log_message(path: &str) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(LOG_TAIL)))?;
        file.take(LOG_TAIL).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    let mut out = Vec::new();
    let mut renderer =
        crate::server::cri_log::Renderer::new(crate::server::cri_log::View::default());
    for line in &lines[lines.len().saturating_sub(MAX_LOG_LINES)..] {
        renderer.push(line, &mut out);
    }
    let start = out.len().saturating_sub(MAX_LOG_MESSAGE);
    String::from_utf8_lossy(&out[start..]).into_owned()
}
