//! A pull replayed on the node that fails, instead of on this machine: by our kubelet there, or by a short-lived pod.

mod kubelet;
mod pod;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use tokio::sync::{OnceCell, Semaphore};
use towline_keyring::Credential;
use towline_oci::Platform;
use towline_probe::Report;

pub use pod::{Right, Visit};

/// Bytes of an answer: a report of an image with 200 layers has some 100 KiB.
const MAX_ANSWER: usize = 4 << 20;
/// Replays on the node at one time: it has its own pulls to make, and its agent takes four.
const AT_ONCE: usize = 2;

/// Who replays on the node.
#[derive(Debug)]
enum How {
    /// Towline's kubelet, which runs there.
    Kubelet,
    /// A pod that is made for it.
    Pod(Box<Visit>),
}

/// Replays pulls as they go on one node. Each pull is replayed there once, however many pods share it.
pub struct Eye {
    client: Client,
    node: String,
    how: How,
    turns: Semaphore,
    looks: Mutex<Vec<Look>>,
}

struct Look {
    image: String,
    namespace: String,
    credentials: Vec<Credential>,
    answer: Arc<OnceCell<Answer>>,
}

type Answer = Result<Arc<Report>, String>;

/// What is to be replayed.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) namespace: &'a str,
    /// The pod whose logins are used; without one nothing is offered.
    pub(crate) pod: Option<&'a str>,
    pub(crate) image: &'a str,
    /// The pull secrets that the pod names and that are there.
    pub(crate) secrets: Vec<String>,
    pub(crate) platform: &'a Platform,
    /// What they hold: pods that offer the same share one replay. Never sent.
    pub(crate) credentials: Vec<Credential>,
}

impl std::fmt::Debug for Eye {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eye")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Eye {
    /// Through Towline's kubelet on this node, by the API server's `nodes/proxy`: the caller needs `create` of `nodes/proxy`.
    pub fn kubelet(client: Client, node: &str) -> Self {
        Self::new(client, node, How::Kubelet)
    }

    /// Through pods that are made on this node for it. [`Eye::clean_up`] must be called in any case.
    pub fn pod(client: Client, node: &str, visit: Visit) -> Self {
        Self::new(client, node, How::Pod(Box::new(visit)))
    }

    fn new(client: Client, node: &str, how: How) -> Self {
        Self {
            client,
            node: node.to_owned(),
            how,
            turns: Semaphore::new(AT_ONCE),
            looks: Mutex::default(),
        }
    }

    /// The node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// From where this sees, for the evidence.
    pub(crate) fn seen_from(&self) -> String {
        format!("node {}", self.node)
    }

    /// By which client.
    pub(crate) fn seen_by(&self) -> String {
        match &self.how {
            How::Kubelet => "towline probe in the node's kubelet".to_owned(),
            How::Pod(visit) => visit.seen_by(),
        }
    }

    /// Deletes what is left of the pods that were made. To be called when the answer is there, and when nobody waits for it any more.
    pub async fn clean_up(&self) -> Vec<String> {
        match &self.how {
            How::Kubelet => Vec::new(),
            How::Pod(visit) => visit.clean_up(&self.client).await,
        }
    }

    /// The replay of a pull on the node, made now or before; else why there is none.
    pub(crate) async fn look(&self, wanted: Wanted<'_>) -> Answer {
        let answer = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let known = looks.iter().find(|known| {
                known.image == wanted.image
                    && known.credentials == wanted.credentials
                    && (known.namespace == wanted.namespace || matches!(self.how, How::Kubelet))
            });
            if let Some(known) = known {
                Arc::clone(&known.answer)
            } else {
                let answer = Arc::default();
                looks.push(Look {
                    image: wanted.image.to_owned(),
                    namespace: wanted.namespace.to_owned(),
                    credentials: wanted.credentials.clone(),
                    answer: Arc::clone(&answer),
                });
                answer
            }
        };
        let ask = || async {
            // Closed never: it lives as long as the eye.
            let _turn = self.turns.acquire().await;
            let mut report = match &self.how {
                How::Kubelet => kubelet::ask(&self.client, &self.node, &wanted).await?,
                How::Pod(visit) => Box::pin(visit.ask(&self.client, &self.node, &wanted)).await?,
            };
            report.facts = Vec::new();
            Ok(Arc::new(report))
        };
        answer.get_or_init(ask).await.clone()
    }
}

/// The report in what a node answered.
fn report(bytes: &[u8]) -> Result<Report, String> {
    #[derive(serde::Deserialize)]
    struct NodeReplay {
        report: Report,
    }
    serde_json::from_slice::<NodeReplay>(bytes)
        .map(|answer| answer.report)
        .map_err(|error| format!("what it answered is no report of a replay: {error}"))
}
