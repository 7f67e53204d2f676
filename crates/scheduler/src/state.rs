//! Pods and nodes as the watches show them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;

use crate::decide::Candidate;

/// What the scheduler knows of the cluster.
#[derive(Debug, Default)]
pub(crate) struct State {
    pods: BTreeMap<(String, String), Pod>,
    nodes: BTreeMap<String, Node>,
    /// Whether the lists of pods and of nodes are whole: nothing may be concluded from what is absent before.
    pods_whole: bool,
    nodes_whole: bool,
}

impl State {
    pub(crate) fn pod(&mut self, event: Event<Pod>) {
        let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => drop(self.pods.insert(key(&pod), pod)),
            Event::Delete(pod) => drop(self.pods.remove(&key(&pod))),
            Event::Init => {
                self.pods.clear();
                self.pods_whole = false;
            }
            Event::InitDone => self.pods_whole = true,
        }
    }

    pub(crate) fn node(&mut self, event: Event<Node>) {
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                drop(self.nodes.insert(node.name_any(), node));
            }
            Event::Delete(node) => drop(self.nodes.remove(&node.name_any())),
            Event::Init => {
                self.nodes.clear();
                self.nodes_whole = false;
            }
            Event::InitDone => self.nodes_whole = true,
        }
    }

    /// Whether both lists are whole.
    pub(crate) fn whole(&self) -> bool {
        self.pods_whole && self.nodes_whole
    }

    /// Pods that wait for a node from this scheduler, oldest first.
    pub(crate) fn waiting(&self, scheduler: &str) -> Vec<Pod> {
        let ours = |pod: &&Pod| {
            let Some(spec) = &pod.spec else { return false };
            let named = spec
                .scheduler_name
                .as_deref()
                .unwrap_or("default-scheduler")
                == scheduler;
            let gated = spec
                .scheduling_gates
                .as_ref()
                .is_some_and(|gates| !gates.is_empty());
            spec.node_name.is_none() && named && !gated && pod.metadata.deletion_timestamp.is_none()
        };
        let mut waiting: Vec<Pod> = self.pods.values().filter(ours).cloned().collect();
        waiting.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        waiting
    }

    /// Every node with the pods bound to it that are not over.
    pub(crate) fn candidates(&self) -> Vec<Candidate<'_>> {
        let over = |pod: &&Pod| {
            matches!(
                pod.status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref()),
                Some("Succeeded" | "Failed")
            )
        };
        self.nodes
            .iter()
            .map(|(name, node)| {
                let bound = |pod: &&Pod| {
                    pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(name)
                };
                Candidate {
                    node,
                    pods: self
                        .pods
                        .values()
                        .filter(bound)
                        .filter(|pod| !over(pod))
                        .collect(),
                }
            })
            .collect()
    }

    /// Remembers a binding before the watch shows it, so that the next decision counts it.
    pub(crate) fn bound(&mut self, pod: &Pod, node: &str) {
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        if let Some(spec) = self.pods.get_mut(&key).and_then(|pod| pod.spec.as_mut()) {
            spec.node_name = Some(node.to_owned());
        }
    }
}
