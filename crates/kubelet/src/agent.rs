//! What all workers share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use towline_pod::backoff::CrashBackoff;

use crate::clock::Clock;
use crate::cri::Cri;
use crate::env::field::NodeFacts;
use crate::events::Recorder;
use crate::images::{Images, Trouble};
use crate::metrics::Metrics;
use crate::node::Capacity;
use crate::pleg::Pleg;
use crate::probes::Probes;
use crate::sources::Sources;
use crate::status::{self, Inputs, StatusManager};
use crate::sync::sandbox;
use crate::view::{self, PodView};
use crate::volumes::Volumes;

/// Troubles that are remembered, as in the kubelet.
const TROUBLES: usize = 1000;

/// Settings that do not change while the agent runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node_name: String,
    pub(crate) host_ip: String,
    pub(crate) log_root: PathBuf,
    pub(crate) cluster_dns: Vec<String>,
    pub(crate) cluster_domain: String,
    pub(crate) resolv_conf: PathBuf,
    pub(crate) cgroup_root: String,
    /// Variables of the `kubernetes` service.
    pub(crate) services: Vec<(String, String)>,
    /// Nothing that Kubernetes does not do.
    pub(crate) exact: bool,
    /// The runtime's name, in container ids.
    pub(crate) runtime: String,
    pub(crate) capacity: Capacity,
}

/// The node agent's shared parts.
pub(crate) struct Agent {
    pub(crate) settings: Settings,
    pub(crate) cri: Cri,
    pub(crate) pleg: Arc<Pleg>,
    pub(crate) images: Arc<Images>,
    pub(crate) recorder: Recorder,
    pub(crate) status: Arc<StatusManager>,
    pub(crate) volumes: Volumes,
    pub(crate) probes: Arc<Probes>,
    pub(crate) sources: Sources,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) crash: Mutex<CrashBackoff>,
    pub(crate) troubles: Troubles,
    /// Why the runtime's network is not ready.
    pub(crate) network: Mutex<Option<String>>,
}

/// Why containers could not be started in their pod's last sync.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<(String, String), (u64, Trouble)>>);

impl Troubles {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (u64, Trouble)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the outcome of a start.
    pub(crate) fn set(&self, uid: &str, container: &str, trouble: Option<Trouble>) {
        let mut all = self.lock();
        let key = (uid.to_owned(), container.to_owned());
        let Some(trouble) = trouble else {
            all.remove(&key);
            return;
        };
        let newest = all.values().map(|(at, _)| *at).max().unwrap_or(0);
        all.insert(key, (newest + 1, trouble));
        if all.len() > TROUBLES
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, (at, _))| *at)
                .map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
    }

    /// The trouble of a container.
    pub(crate) fn get(&self, uid: &str, container: &str) -> Option<Trouble> {
        let key = (uid.to_owned(), container.to_owned());
        self.lock().get(&key).map(|(_, trouble)| trouble.clone())
    }

    fn forget(&self, uid: &str) {
        self.lock().retain(|(pod, _), _| pod != uid);
    }
}

impl Agent {
    /// The status of a pod as it is now.
    pub(crate) fn make_status(
        &self,
        pod: &Pod,
        view: &PodView,
        terminal: bool,
        now: Timestamp,
    ) -> PodStatus {
        let uid = view::uid(pod);
        let previous = self.status.get(pod);
        status::generate(&Inputs {
            pod,
            view,
            previous: &previous,
            trouble: &|name| self.troubles.get(uid, name),
            health: &|name| {
                let running = view.latest(name).map(|c| c.id.as_str()).unwrap_or_default();
                self.probes.health(uid, name, running)
            },
            runtime: &self.settings.runtime,
            host_ip: &self.settings.host_ip,
            terminal,
            now,
        })
    }

    /// What a container or a volume may ask of the node and the pod's addresses.
    pub(crate) fn facts(&self, pod: &Pod, view: &PodView) -> NodeFacts {
        let ips = if view::host_network(pod) {
            vec![self.settings.host_ip.clone()]
        } else {
            view.ready_sandbox()
                .map(|s| s.ips.clone())
                .unwrap_or_default()
        };
        NodeFacts {
            name: self.settings.node_name.clone(),
            host_ip: self.settings.host_ip.clone(),
            pod_ips: ips,
            cpu_milli: i128::from(self.settings.capacity.cpus) * 1000,
            memory_milli: i128::from(self.settings.capacity.memory) * 1000,
        }
    }

    /// The quality of service of a pod.
    pub(crate) fn qos(pod: &Pod) -> String {
        let given = pod.status.as_ref().and_then(|s| s.qos_class.clone());
        let made = || {
            pod.spec
                .as_ref()
                .map_or("BestEffort", towline_pod::qos::class)
                .to_owned()
        };
        given.unwrap_or_else(made)
    }

    /// The sandbox's configuration.
    pub(crate) async fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
    ) -> towline_cri::v1::PodSandboxConfig {
        let settings = &self.settings;
        let resolv_conf = tokio::fs::read_to_string(&settings.resolv_conf)
            .await
            .unwrap_or_default();
        let qos = Self::qos(pod);
        let defaults = sandbox::Defaults {
            log_root: &settings.log_root,
            cluster_dns: &settings.cluster_dns,
            cluster_domain: &settings.cluster_domain,
            resolv_conf: &resolv_conf,
            cgroup_root: &settings.cgroup_root,
            qos: &qos,
        };
        sandbox::config(pod, attempt, &defaults)
    }

    /// Forgets a pod of which nothing is left.
    pub(crate) fn forget(&self, uid: &str) {
        self.images.forget(uid);
        self.troubles.forget(uid);
        self.probes.remove_pod(uid);
        self.sources.unregister(uid);
    }
}
