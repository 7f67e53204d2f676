//! The Node object: made once, its status written when it changes and at least every five minutes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::facts;
use crate::agent::Agent;
use crate::clock::between;

const CHECK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const IMAGES: usize = 50;
const NAMES: usize = 5;
const MIN_MEMORY: u64 = 100 * 1024 * 1024;

/// Names and addresses of the node.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) ip: String,
    /// The port of the logs endpoint.
    pub(crate) port: u16,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) root: PathBuf,
    /// `name://version` of the runtime.
    pub(crate) runtime: String,
}

/// Keeps the Node object.
pub(crate) struct Registration {
    pub(crate) client: kube::Client,
    pub(crate) agent: Arc<Agent>,
    pub(crate) identity: Identity,
}

impl Registration {
    /// Registers, and then writes the status until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut last: Option<(NodeStatus, Timestamp)> = None;
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut registered = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if !registered {
                match self.register().await {
                    Ok(()) => registered = true,
                    Err(error) => {
                        warn!(node = self.identity.name, %error, "the node cannot be registered");
                        ticks.reset_after(Duration::from_secs(1));
                        continue;
                    }
                }
            }
            let now = self.agent.clock.now();
            let status = self
                .status(now, last.as_ref().map(|(status, _)| status))
                .await;
            let due = last
                .as_ref()
                .is_none_or(|(before, at)| !same(before, &status) || between(*at, now) >= REPORT);
            if !due {
                continue;
            }
            match self.write(&status).await {
                Ok(()) => last = Some((status, now)),
                Err(kube::Error::Api(error)) if error.code == 404 => registered = false,
                Err(error) => {
                    warn!(node = self.identity.name, %error, "the node's status cannot be written");
                }
            }
        }
    }

    async fn register(&self) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let name = &self.identity.name;
        let mut labels = self.identity.labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        labels.insert(
            "kubernetes.io/arch".to_owned(),
            facts::architecture().to_owned(),
        );
        let node = Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec::default()),
            status: Some(self.status(self.agent.clock.now(), None).await),
        };
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => {
                info!(node = name, "node registered");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = serde_json::json!({ "metadata": { "labels": labels } });
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, status: &NodeStatus) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = serde_json::json!({ "status": status });
        let name = &self.identity.name;
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
    }

    async fn status(&self, now: Timestamp, before: Option<&NodeStatus>) -> NodeStatus {
        let identity = &self.identity;
        let resources = self.resources();
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", &identity.ip),
                address("Hostname", &identity.name),
            ]),
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(self.conditions(now, before).await),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint {
                    port: i32::from(identity.port),
                }),
            }),
            images: Some(self.images().await),
            node_info: Some(facts::system(&identity.runtime)),
            ..NodeStatus::default()
        }
    }

    fn resources(&self) -> BTreeMap<String, Quantity> {
        let capacity = &self.agent.settings.capacity;
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(capacity.cpus.to_string())),
            (
                "memory".to_owned(),
                Quantity(format!("{}Ki", capacity.memory / 1024)),
            ),
            (
                "ephemeral-storage".to_owned(),
                Quantity(format!("{}Ki", capacity.disk / 1024)),
            ),
            ("pods".to_owned(), Quantity(capacity.pods.to_string())),
        ])
    }

    async fn conditions(&self, now: Timestamp, before: Option<&NodeStatus>) -> Vec<NodeCondition> {
        let short_memory = facts::meminfo("MemAvailable").is_some_and(|free| free < MIN_MEMORY);
        let short_disk =
            facts::disk_free(&self.identity.root).is_some_and(|(free, whole)| free < whole / 10);
        let pressure = |type_: &str, short: bool, word: &str, negative: &str| {
            let (status, reason, message) = if short {
                (
                    "True",
                    format!("KubeletHas{word}"),
                    format!("kubelet has {negative}"),
                )
            } else {
                return (
                    type_.to_owned(),
                    "False".to_owned(),
                    match type_ {
                        "MemoryPressure" => "KubeletHasSufficientMemory".to_owned(),
                        "DiskPressure" => "KubeletHasNoDiskPressure".to_owned(),
                        _ => "KubeletHasSufficientPID".to_owned(),
                    },
                    match type_ {
                        "MemoryPressure" => "kubelet has sufficient memory available".to_owned(),
                        "DiskPressure" => "kubelet has no disk pressure".to_owned(),
                        _ => "kubelet has sufficient PID available".to_owned(),
                    },
                );
            };
            (type_.to_owned(), status.to_owned(), reason, message)
        };
        let ready = self.ready().await;
        let all = [
            pressure(
                "MemoryPressure",
                short_memory,
                "InsufficientMemory",
                "insufficient memory available",
            ),
            pressure("DiskPressure", short_disk, "DiskPressure", "disk pressure"),
            pressure(
                "PIDPressure",
                false,
                "InsufficientPID",
                "insufficient PID available",
            ),
            match ready {
                Ok(()) => (
                    "Ready".to_owned(),
                    "True".to_owned(),
                    "KubeletReady".to_owned(),
                    "kubelet is posting ready status".to_owned(),
                ),
                Err(problem) => (
                    "Ready".to_owned(),
                    "False".to_owned(),
                    "KubeletNotReady".to_owned(),
                    problem,
                ),
            },
        ];
        let old = before.and_then(|b| b.conditions.as_ref());
        all.into_iter()
            .map(|(type_, status, reason, message)| {
                let same =
                    old.and_then(|old| old.iter().find(|c| c.type_ == type_ && c.status == status));
                NodeCondition {
                    last_heartbeat_time: Some(Time(now)),
                    last_transition_time: same
                        .and_then(|c| c.last_transition_time.clone())
                        .or(Some(Time(now))),
                    type_,
                    status,
                    reason: Some(reason),
                    message: Some(message),
                }
            })
            .collect()
    }

    /// Asks the runtime; also remembers for the pods whether its network is ready.
    async fn ready(&self) -> Result<(), String> {
        let conditions = self.agent.cri.status().await.map_err(|error| {
            format!("container runtime status check may not have completed yet: {error}")
        })?;
        let mut problems = Vec::new();
        let mut network = None;
        for condition in conditions.iter().filter(|c| !c.status) {
            let words = format!("{} {}", condition.reason, condition.message);
            match condition.r#type.as_str() {
                "RuntimeReady" => problems.push(format!("container runtime not ready: {words}")),
                "NetworkReady" => {
                    let text = format!(
                        "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                        condition.reason, condition.message
                    );
                    problems.push(text.clone());
                    network = Some(text);
                }
                _ => {}
            }
        }
        *self
            .agent
            .network
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = network;
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("[{}]", problems.join(", ")))
        }
    }

    /// The largest images, with their digests before their tags.
    async fn images(&self) -> Vec<ContainerImage> {
        let mut images = self.agent.cri.list_images().await.unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        images.truncate(IMAGES);
        images
            .into_iter()
            .map(|image| ContainerImage {
                names: Some(
                    image
                        .repo_digests
                        .into_iter()
                        .chain(image.repo_tags)
                        .take(NAMES)
                        .collect(),
                ),
                size_bytes: i64::try_from(image.size).ok(),
            })
            .collect()
    }
}

fn address(type_: &str, address: &str) -> NodeAddress {
    NodeAddress {
        type_: type_.to_owned(),
        address: address.to_owned(),
    }
}

/// Whether two statuses say the same but for their heartbeat.
fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    quiet(a) == quiet(b)
}
