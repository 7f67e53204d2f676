//! Which node a pod goes to, or why none will do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, Taint, Toleration};
use towline_pod::quantity;

use crate::affinity;

/// A node and what the pods bound to it ask for.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a Node,
    /// Pods bound to it that are not over.
    pub pods: Vec<&'a Pod>,
}

/// The node that was chosen, or what is wrong with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind to this node.
    Bind(String),
    /// No node will do; the text is that of Kubernetes' `FailedScheduling` event.
    Wait(String),
}

/// Decides for one pod: filters the nodes, then takes the one with most room left.
pub fn decide(pod: &Pod, candidates: &[Candidate<'_>]) -> Decision {
    if candidates.is_empty() {
        return Decision::Wait("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i128, &str)> = None;
    for candidate in candidates {
        if let Some(reason) = misfit(pod, candidate) {
            *reasons.entry(reason).or_default() += 1;
            continue;
        }
        let name = candidate.node.metadata.name.as_deref().unwrap_or_default();
        let room = room_left(pod, candidate);
        if best.is_none_or(|(most, _)| room > most) {
            best = Some((room, name));
        }
    }
    if let Some((_, name)) = best {
        return Decision::Bind(name.to_owned());
    }
    let listed: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let total = candidates.len();
    Decision::Wait(format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling.",
        listed.join(", ")
    ))
}

/// Why a pod cannot go to a node, in Kubernetes' words.
fn misfit(pod: &Pod, candidate: &Candidate<'_>) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let node = candidate.node;
    if node
        .spec
        .as_ref()
        .is_some_and(|spec| spec.unschedulable == Some(true))
    {
        return Some("node(s) were unschedulable".to_owned());
    }
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    let mut blocking = taints.filter(|taint| taint.effect != "PreferNoSchedule");
    if let Some(taint) =
        blocking.find(|taint| !tolerated(taint, spec.tolerations.as_deref().unwrap_or_default()))
    {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
    if !is_ready(node) {
        return Some("node(s) were not ready".to_owned());
    }
    if !affinity::wanted(spec, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if ports_taken(pod, candidate) {
        return Some("node(s) didn't have free ports for the requested pod ports".to_owned());
    }
    for resource in ["pods", "cpu", "memory", "ephemeral-storage"] {
        let (free, wanted) = free_and_wanted(resource, pod, candidate);
        if wanted > 0 && wanted > free {
            return Some(if resource == "pods" {
                "Too many pods".to_owned()
            } else {
                format!("Insufficient {resource}")
            });
        }
    }
    None
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists
                || toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default())
    })
}

fn ports_taken(pod: &Pod, candidate: &Candidate<'_>) -> bool {
    let wanted = host_ports(pod);
    !wanted.is_empty()
        && candidate
            .pods
            .iter()
            .any(|other| host_ports(other).iter().any(|port| wanted.contains(port)))
}

fn host_ports(pod: &Pod) -> Vec<(i32, String)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some((
                port.host_port.filter(|port| *port > 0)?,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            ))
        })
        .collect()
}

/// What is free of a resource on a node, and what the pod asks for; in thousandths.
fn free_and_wanted(resource: &str, pod: &Pod, candidate: &Candidate<'_>) -> (i128, i128) {
    let allocatable = candidate
        .node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    let total = quantity::of(allocatable, resource).unwrap_or(0);
    let used: i128 = candidate
        .pods
        .iter()
        .map(|pod| request(resource, pod))
        .sum();
    (total - used, request(resource, pod))
}

/// What a pod asks for: the sum of its containers, or its largest init container, whichever is more.
fn request(resource: &str, pod: &Pod) -> i128 {
    if resource == "pods" {
        return 1000;
    }
    let Some(spec) = &pod.spec else { return 0 };
    let of = |container: &Container| {
        let requests = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        quantity::of(requests, resource).unwrap_or(0)
    };
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let main: i128 = spec
        .containers
        .iter()
        .chain(init.iter().filter(is_sidecar))
        .map(of)
        .sum();
    let largest = init
        .iter()
        .filter(|container| !is_sidecar(container))
        .map(of)
        .max()
        .unwrap_or(0);
    main.max(largest)
}

/// The smaller of the shares of cpu and memory that stay free, in parts of ten thousand.
fn room_left(pod: &Pod, candidate: &Candidate<'_>) -> i128 {
    let share = |resource: &str| {
        let allocatable = candidate
            .node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        let total = quantity::of(allocatable, resource).unwrap_or(0).max(1);
        let (free, wanted) = free_and_wanted(resource, pod, candidate);
        (free - wanted).saturating_mul(10_000) / total
    };
    // Pods that ask for nothing are spread by number.
    share("cpu").min(share("memory")) - i128::try_from(candidate.pods.len()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, change: impl FnOnce(&mut Value)) -> Node {
        let mut node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/arch": "amd64" } },
            "spec": {},
            "status": {
                "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "2" },
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        change(&mut node);
        serde_json::from_value(node).unwrap()
    }

    fn pod(spec: &Value) -> Pod {
        let mut spec = spec.clone();
        if spec["containers"].is_null() {
            spec["containers"] = json!([{ "name": "a" }]);
        }
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    fn asking(cpu: &str) -> Value {
        json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu } } }] })
    }

    #[test]
    fn each_misfit_has_kubernetes_words() {
        let plain = pod(&json!({}));
        let check = |node: Node, pod: Pod, want: &str| {
            let Decision::Wait(text) = decide(
                &pod,
                &[Candidate {
                    node: &node,
                    pods: vec![],
                }],
            ) else {
                panic!("{want}")
            };
            assert!(
                text.starts_with(&format!("0/1 nodes are available: {want}. preemption:")),
                "{text}"
            );
        };
        check(
            node("n", |n| n["spec"]["unschedulable"] = json!(true)),
            plain.clone(),
            "1 node(s) were unschedulable",
        );
        check(
            node("n", |n| {
                n["status"]["conditions"][0]["status"] = json!("False");
            }),
            plain.clone(),
            "1 node(s) were not ready",
        );
        check(
            node("n", |n| {
                n["spec"]["taints"] = json!([{ "key": "k", "value": "v", "effect": "NoSchedule" }]);
            }),
            plain.clone(),
            "1 node(s) had untolerated taint {k: v}",
        );
        check(
            node("n", |_| ()),
            pod(&json!({ "nodeSelector": { "kubernetes.io/arch": "arm64" } })),
            "1 node(s) didn't match Pod's node affinity/selector",
        );
        check(
            node("n", |_| ()),
            pod(&asking("2001m")),
            "1 Insufficient cpu",
        );
        assert_eq!(
            decide(&plain, &[]),
            Decision::Wait("no nodes available to schedule pods".to_owned())
        );
    }

    #[test]
    fn the_emptier_node_is_taken() {
        let (one, two) = (node("one", |_| ()), node("two", |_| ()));
        let busy = pod(&asking("1"));
        let candidates = [
            Candidate {
                node: &one,
                pods: vec![&busy],
            },
            Candidate {
                node: &two,
                pods: vec![],
            },
        ];
        assert_eq!(
            decide(&pod(&asking("500m")), &candidates),
            Decision::Bind("two".to_owned())
        );
        let full = [Candidate {
            node: &one,
            pods: vec![&busy, &busy],
        }];
        let Decision::Wait(text) = decide(&pod(&json!({})), &full) else {
            panic!("full")
        };
        assert!(text.contains("1 Too many pods"), "{text}");
    }

    #[test]
    fn tolerations_and_ports() {
        let tainted = node("n", |n| {
            n["spec"]["taints"] = json!([{ "key": "k", "value": "v", "effect": "NoSchedule" }]);
        });
        let tolerant = pod(&json!({ "tolerations": [{ "key": "k", "operator": "Exists" }] }));
        assert!(matches!(
            decide(
                &tolerant,
                &[Candidate {
                    node: &tainted,
                    pods: vec![]
                }]
            ),
            Decision::Bind(_)
        ));
        let web = pod(
            &json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] }),
        );
        let free = node("n", |_| ());
        let Decision::Wait(text) = decide(
            &web,
            &[Candidate {
                node: &free,
                pods: vec![&web],
            }],
        ) else {
            panic!("taken")
        };
        assert!(text.contains("free ports"), "{text}");
    }
}
