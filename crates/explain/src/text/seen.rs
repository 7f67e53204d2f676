//! What a paste shows of pods: their containers, and what was said about them.

use towline_pod::pulls::ContainerPull;

use crate::Owner;

/// Most pods that are kept of one paste.
pub(super) const MAX_PODS: usize = 2000;
/// Most sentences that are kept of one pod.
const MAX_SAID: usize = 200;

/// A pod, as far as the text shows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    pub(super) namespace: Option<String>,
    /// Empty for sentences that name no pod.
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) owner: Option<Owner>,
    pub(super) service_account: Option<String>,
    pub(super) containers: Vec<Container>,
    pub(super) said: Vec<Said>,
    /// What a runtime of ours left in the pod's annotation.
    pub(super) pulls: Vec<ContainerPull>,
    /// Every container is shown to run.
    pub(super) runs: bool,
}

/// A container of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    /// It is an init container.
    pub(super) init: bool,
    /// The waiting reason.
    pub(super) reason: Option<String>,
    /// The waiting message.
    pub(super) message: Option<String>,
    /// It runs or ran, so its image is there.
    pub(super) started: bool,
}

/// A sentence of an event.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) reason: Option<String>,
    pub(super) container: Option<String>,
    pub(super) text: String,
    /// Seconds since it was last seen.
    pub(super) age: Option<u64>,
    pub(super) count: Option<u32>,
}

/// All that a paste shows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) pods: Vec<Pod>,
    /// A Secret was among the objects: nothing of it is read.
    pub(super) secret: bool,
    /// Pods were left out because there were too many.
    pub(super) cut: bool,
}

impl Seen {
    /// The pod of this name, which other parts of the paste may have shown already.
    pub(super) fn pod(&mut self, namespace: Option<&str>, name: &str) -> Option<&mut Pod> {
        let same = |pod: &Pod| {
            pod.name == name
                && match (pod.namespace.as_deref(), namespace) {
                    (Some(known), Some(asked)) => known == asked,
                    _ => true,
                }
        };
        if let Some(at) = self.pods.iter().position(same) {
            let pod = &mut self.pods[at];
            pod.namespace = pod
                .namespace
                .take()
                .or_else(|| namespace.map(str::to_owned));
            return Some(pod);
        }
        if self.pods.len() >= MAX_PODS {
            self.cut = true;
            return None;
        }
        self.pods.push(Pod {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            ..Pod::default()
        });
        self.pods.last_mut()
    }

    /// Adds a pod that is shown whole.
    pub(super) fn add(&mut self, pod: Pod) {
        let Some(known) = self.pod(pod.namespace.as_deref(), &pod.name) else {
            return;
        };
        known.node = pod.node.or_else(|| known.node.take());
        known.owner = pod.owner.or_else(|| known.owner.take());
        known.service_account = pod.service_account.or_else(|| known.service_account.take());
        if !pod.containers.is_empty() {
            known.containers = pod.containers;
        }
        if !pod.pulls.is_empty() {
            known.pulls = pod.pulls;
        }
        known.runs |= pod.runs;
        for said in pod.said {
            known.say(said);
        }
    }
}

/// Waiting reasons that are about an image.
const PULL_REASONS: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

pub(crate) fn is_pull_reason(reason: &str) -> bool {
    PULL_REASONS.contains(&reason)
}

impl Container {
    /// Its image is on the node: it runs or ran, and does not wait for another.
    pub(super) fn has_image(&self) -> bool {
        self.started && !self.reason.as_deref().is_some_and(is_pull_reason)
    }
}

impl Pod {
    /// Keeps a sentence. Of too many the oldest go; one that is said again is kept once, as the newest.
    pub(super) fn say(&mut self, mut said: Said) {
        if said.text.is_empty() {
            return;
        }
        let same = |known: &Said| {
            known.text == said.text
                && known.reason == said.reason
                && known.container == said.container
        };
        if let Some(at) = self.said.iter().position(same) {
            let before = self.said.remove(at);
            said.age = match (before.age, said.age) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => b.or(a),
            };
            said.count = said.count.max(before.count);
        } else if self.said.len() >= MAX_SAID {
            self.said.remove(0);
        }
        self.said.push(said);
    }
}
