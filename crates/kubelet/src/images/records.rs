//! What Kubernetes does not say of a pull: cause, step, which attempt, and when the next one is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use towline_pod::pulls::{self, ContainerPull, Pulls};

use super::Ask;
use super::cause::Known;
use crate::trace::Trace;
use crate::view;

/// Pulls by pod and container.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<HashMap<String, BTreeMap<String, ContainerPull>>>);

/// What the condition says of all pulls of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Whether every image is there.
    pub(crate) fine: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The pod's annotations without our own, which change with each attempt.
pub(crate) fn foreign_annotations(pod: &Pod) -> BTreeMap<String, String> {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(pulls::ANNOTATION);
    annotations
}

impl Records {
    fn change(&self, ask: &Ask<'_>, change: impl FnOnce(&mut ContainerPull)) {
        let image = ask.container.image.as_deref().unwrap_or_default();
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let containers = pods.entry(view::uid(ask.pod).to_owned()).or_default();
        let pull = containers
            .entry(ask.container.name.clone())
            .or_insert_with(|| ContainerPull::new(&ask.container.name, image));
        if pull.image != image {
            *pull = ContainerPull::new(&ask.container.name, image);
        }
        change(pull);
    }

    /// An attempt begins; its number.
    pub(super) fn started(&self, ask: &Ask<'_>, trace: &Trace, now: Timestamp) -> u32 {
        let mut number = 0;
        self.change(ask, |pull| {
            pull.attempt = pull.attempt.saturating_add(1);
            number = pull.attempt;
            pull.attempt_id = Some(trace.attempt.clone());
            pull.last_attempt = Some(now);
            pull.next_attempt = None;
            pull.cause = None;
            pull.step = None;
            pull.endpoint = None;
            pull.message = None;
        });
        number
    }

    /// An attempt failed.
    pub(super) fn failed(
        &self,
        ask: &Ask<'_>,
        known: &Known,
        message: &str,
        now: Timestamp,
        next: Option<Timestamp>,
    ) {
        self.change(ask, |pull| {
            pull.cause = Some(known.cause.clone());
            pull.step = known.step;
            pull.read = known.read;
            pull.endpoint.clone_from(&known.endpoint);
            pull.last_attempt = Some(now);
            pull.next_attempt = next;
            *pull = pull.clone().with_message(message);
        });
    }

    /// A failure before any attempt. Told once, so that an unchanged state is not written again and again.
    pub(super) fn refused(
        &self,
        ask: &Ask<'_>,
        known: &Known,
        message: &str,
        now: Timestamp,
        next: Timestamp,
    ) {
        self.change(ask, |pull| {
            let same = pull.cause.as_ref() == Some(&known.cause)
                && pull.message.as_deref() == Some(message);
            if !same {
                let fresh = ContainerPull::new(&pull.name, &pull.image);
                *pull = ContainerPull {
                    cause: Some(known.cause.clone()),
                    step: known.step,
                    read: known.read,
                    endpoint: known.endpoint.clone(),
                    attempt: pull.attempt,
                    last_attempt: Some(now),
                    next_attempt: Some(next),
                    ..fresh.with_message(message)
                };
            }
        });
    }

    /// The container waits for a window that another container of the pod may have opened.
    pub(super) fn waiting(&self, ask: &Ask<'_>, failures: u32, until: Timestamp) {
        let image = ask.container.image.as_deref().unwrap_or_default();
        let sibling = {
            let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let containers = pods.get(view::uid(ask.pod));
            containers
                .into_iter()
                .flat_map(BTreeMap::values)
                .find(|pull| pull.image == image && pull.cause.is_some())
                .cloned()
        };
        self.change(ask, |pull| {
            if pull.cause.is_none()
                && let Some(sibling) = sibling
            {
                *pull = ContainerPull {
                    name: pull.name.clone(),
                    ..sibling
                };
            }
            pull.attempt = pull.attempt.max(failures);
            pull.next_attempt = Some(until);
        });
    }

    /// The image is there without a pull.
    pub(super) fn present(&self, ask: &Ask<'_>) {
        let known = {
            let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            pods.get(view::uid(ask.pod))
                .is_some_and(|containers| containers.contains_key(&ask.container.name))
        };
        if known {
            self.change(ask, clear);
        }
    }

    /// The attempt succeeded.
    pub(super) fn succeeded(&self, ask: &Ask<'_>, now: Timestamp) {
        self.change(ask, |pull| {
            clear(pull);
            pull.last_attempt = Some(now);
        });
    }

    /// The attempt was given up.
    pub(super) fn cancelled(&self, ask: &Ask<'_>) {
        self.change(ask, clear);
    }

    /// The annotation of a pod; nothing where nothing was pulled.
    pub(crate) fn pulls(&self, pod: &Pod) -> Option<Pulls> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_pod = pods.get(view::uid(pod))?;
        let containers: Vec<_> = view::containers(pod)
            .iter()
            .filter_map(|(_, container)| of_pod.get(&container.name).cloned())
            .collect();
        (!containers.is_empty()).then(|| Pulls::new(containers))
    }

    /// Forgets a pod.
    pub(super) fn forget(&self, uid: &str) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.remove(uid);
    }
}

fn clear(pull: &mut ContainerPull) {
    pull.cause = None;
    pull.step = None;
    pull.endpoint = None;
    pull.message = None;
    pull.next_attempt = None;
}

/// What the condition says. Nothing while the first attempts run.
pub(crate) fn summary(pulls: &Pulls) -> Option<Summary> {
    if let Some(pull) = pulls.containers.iter().find(|pull| pull.cause.is_some()) {
        let reason = pull.cause.as_ref()?.to_string();
        let message = pull.message.as_deref().unwrap_or_default();
        return Some(Summary {
            fine: false,
            // A reason is one word; a name from a later version that is none is not passed on.
            reason: if reason.bytes().all(|b| b.is_ascii_alphanumeric()) {
                reason
            } else {
                "Unknown".to_owned()
            },
            message: format!("container {}: {message}", pull.name),
        });
    }
    let running = pulls
        .containers
        .iter()
        .any(|pull| pull.next_attempt.is_some());
    (!running).then(|| Summary {
        fine: true,
        reason: "ImagesPulled".to_owned(),
        message: String::new(),
    })
}
