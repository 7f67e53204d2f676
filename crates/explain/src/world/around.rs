//! Other pods as witnesses: an image that runs elsewhere has a right name, and what fails on one node alone is that node's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use towline_cause::{Cause, Group};
use towline_oci::Reference;

use crate::Evidence;
use crate::pod::image_states;

/// The most images, and the most registries, that are kept.
const MOST_PLACES: usize = 4096;
/// The most nodes of one of them.
const MOST_NODES: usize = 256;
/// The most nodes that a sentence names.
const MOST_NAMED: usize = 3;

/// Where images and registries were seen to work and to fail.
#[derive(Debug, Default)]
pub(crate) struct Around {
    images: HashMap<String, Places>,
    registries: HashMap<String, Places>,
    /// Whether there are more pods than were looked at: then nothing is alone.
    pub(crate) cut: bool,
}

#[derive(Debug, Default)]
struct Places {
    /// By node the newest start.
    runs: BTreeMap<String, Run>,
    /// Nodes with the pods that fail there: one is enough, and two tell one's own from another's.
    fails: BTreeMap<String, BTreeSet<String>>,
}

/// A container that has its image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// Namespace and name.
    pod: String,
    since: Option<Timestamp>,
    /// Whether the registry was asked just before that.
    asked: bool,
    /// Pull secrets of the pod.
    secrets: Vec<String>,
}

/// The pod that is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// Namespace and name.
    pub(crate) pod: &'a str,
    pub(crate) node: Option<&'a str>,
    pub(crate) made: Option<Timestamp>,
}

impl Around {
    /// Takes what a pod shows.
    pub(crate) fn take(&mut self, pod: &Pod) {
        let spec = pod.spec.as_ref();
        let Some(node) = spec.and_then(|spec| spec.node_name.as_deref()) else {
            return;
        };
        let secrets = spec.and_then(|spec| spec.image_pull_secrets.as_ref());
        let secrets = secrets.map(|all| all.iter().map(|one| one.name.clone()).collect());
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        for state in image_states(pod) {
            let Ok(image) = Reference::parse(state.image) else {
                continue;
            };
            let image = image.with_default_tag();
            let run = state.there.then(|| Run {
                pod: name.clone(),
                since: state.since,
                asked: state.always,
                secrets: secrets.clone().unwrap_or_default(),
            });
            if run.is_none() && !state.fails {
                continue;
            }
            for (places, key) in [
                (&mut self.images, image.to_string()),
                (&mut self.registries, image.registry().to_owned()),
            ] {
                if places.len() < MOST_PLACES || places.contains_key(&key) {
                    places
                        .entry(key)
                        .or_default()
                        .take(node, &name, run.clone());
                }
            }
        }
    }

    /// Whether a registry gave out this image after the pod had been made: it is there, and under this name.
    pub(crate) fn served_since(&self, image: &Reference, own: Own<'_>) -> bool {
        let key = image.clone().with_default_tag().to_string();
        let Some(made) = own.made else { return false };
        self.images.get(&key).is_some_and(|places| {
            let mut runs = places.runs.values();
            runs.any(|run| run.pod != own.pod && run.asked && run.since >= Some(made))
        })
    }

    /// What other pods say of an image that does not pull.
    pub(crate) fn evidence(
        &self,
        image: &Reference,
        own: Own<'_>,
        cause: Option<Cause>,
    ) -> Vec<Evidence> {
        let name = image.clone().with_default_tag().to_string();
        let of_image = self.images.get(&name);
        let of_registry = self.registries.get(image.registry());
        let said = of_image
            .and_then(|places| places.of_image(own, cause, self.cut))
            .or_else(|| {
                let places = of_registry.filter(|_| cause.is_some_and(of_the_way))?;
                places.of_registry(image.registry(), own, self.cut)
            });
        let evidence = said.map(|fact| Evidence {
            fact,
            seen_from: "the cluster's API".to_owned(),
            seen_by: "kubelet".to_owned(),
        });
        evidence.into_iter().collect()
    }
}

/// Causes that lie on the way from a node to a registry, or at the node.
fn of_the_way(cause: Cause) -> bool {
    matches!(
        cause.group(),
        Group::Network | Group::Tls | Group::Registry | Group::Transfer | Group::Node
    ) || matches!(cause, Cause::RateLimited | Cause::Unknown)
}

impl Places {
    fn take(&mut self, node: &str, pod: &str, run: Option<Run>) {
        let full = |nodes: usize| nodes >= MOST_NODES;
        match run {
            None if !full(self.fails.len()) || self.fails.contains_key(node) => {
                let pods = self.fails.entry(node.to_owned()).or_default();
                if pods.len() < 2 {
                    pods.insert(pod.to_owned());
                }
            }
            Some(run) if !full(self.runs.len()) || self.runs.contains_key(node) => {
                let known = self.runs.get(node);
                if known.is_none_or(|known| known.since < run.since) {
                    self.runs.insert(node.to_owned(), run);
                }
            }
            _ => {}
        }
    }

    /// Nodes where it runs, but for the pod itself: the newest start first.
    fn runs_of_others(&self, own: Own<'_>) -> Vec<(&str, &Run)> {
        let others = self.runs.iter().filter(|(_, run)| run.pod != own.pod);
        let mut runs: Vec<(&str, &Run)> = others.map(|(node, run)| (node.as_str(), run)).collect();
        runs.sort_by_key(|(_, run)| std::cmp::Reverse(run.since));
        runs
    }

    /// Other nodes where it fails.
    fn fails_elsewhere(&self, own: Own<'_>) -> Vec<&str> {
        let nodes = self.fails.keys().map(String::as_str);
        nodes.filter(|node| Some(*node) != own.node).collect()
    }

    fn of_image(&self, own: Own<'_>, cause: Option<Cause>, cut: bool) -> Option<String> {
        let runs = self.runs_of_others(own);
        let fails = self.fails_elsewhere(own);
        if runs.is_empty() {
            let also = (!fails.is_empty()).then(|| named(&fails));
            return also.map(|nodes| format!("the same image fails on {nodes} too"));
        }
        let logins = cause.is_some_and(|cause| cause.group() == Group::Credentials);
        let (here, elsewhere): (Vec<_>, Vec<_>) = runs
            .into_iter()
            .partition(|(node, _)| Some(*node) == own.node);
        let Some((first, more)) = elsewhere.split_first() else {
            let (_, run) = here.first()?;
            let run = run.words(logins);
            return Some(format!("the same image runs on this node ({run})"));
        };
        let mut words = format!(
            "the same image runs on node {} ({}){}",
            first.0,
            first.1.words(logins),
            and_more(more.len())
        );
        words.push_str(": its name was right when it was pulled there");
        words.push_str(&alone(own, &fails, cut));
        Some(words)
    }

    fn of_registry(&self, registry: &str, own: Own<'_>, cut: bool) -> Option<String> {
        let runs = self.runs_of_others(own);
        let fails = self.fails_elsewhere(own);
        let elsewhere = |(node, _): &&(&str, &Run)| Some(*node) != own.node;
        let mut others = runs.iter().filter(elsewhere);
        let Some((node, run)) = others.next() else {
            let also = (!fails.is_empty()).then(|| named(&fails));
            return also.map(|nodes| format!("images of {registry} fail on {nodes} too"));
        };
        Some(format!(
            "an image of {registry} runs on node {node} ({}){}{}",
            run.words(false),
            and_more(others.count()),
            alone(own, &fails, cut)
        ))
    }
}

impl Run {
    /// `pod shop/web-2 since 2026-11-30T12:00:00Z, with the secret "regcred"`.
    fn words(&self, logins: bool) -> String {
        let since = match (self.since, self.asked) {
            (Some(since), true) => format!(", pulled at {since}"),
            (Some(since), false) => format!(" since {since}"),
            (None, _) => String::new(),
        };
        let secret = match self.secrets.first() {
            Some(name) if logins => format!(", whose pull secret is {name:?}"),
            _ => String::new(),
        };
        format!("pod {}{since}{secret}", self.pod)
    }
}

/// Where it fails nowhere else, that is worth a look at the node; of a list that was cut (`cut`) nobody knows.
fn alone(own: Own<'_>, fails: &[&str], cut: bool) -> String {
    match (own.node, fails) {
        (Some(node), []) if !cut => format!("; it fails on node {node} alone"),
        (_, []) => String::new(),
        (_, fails) => format!("; it fails on {} too", named(fails)),
    }
}

fn and_more(nodes: usize) -> String {
    match nodes {
        0 => String::new(),
        1 => " and on another node".to_owned(),
        more => format!(" and on {more} other nodes"),
    }
}

fn named(nodes: &[&str]) -> String {
    let first = nodes[..nodes.len().min(MOST_NAMED)].join(", ");
    match nodes.len() {
        1 => format!("node {first}"),
        many if many <= MOST_NAMED => format!("nodes {first}"),
        many => format!("nodes {first} and {} more", many - MOST_NAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, image: &str, state: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name},
            "spec": {
                "nodeName": node,
                "imagePullSecrets": [{"name": "regcred"}],
                "containers": [{"name": "app", "image": image, "imagePullPolicy": "Always"}],
            },
            "status": {"containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap()
    }

    fn around(pods: &[(&str, &str, &str, bool)]) -> Around {
        let mut around = Around::default();
        for (name, node, image, runs) in pods {
            let state = if *runs {
                json!({"running": {"startedAt": "2026-11-30T12:00:00Z"}})
            } else {
                json!({"waiting": {"reason": "ImagePullBackOff"}})
            };
            around.take(&pod(name, node, image, &state));
        }
        around
    }

    fn say(around: &Around, image: &str, cause: Cause) -> Option<String> {
        let own = Own {
            pod: "shop/web-1",
            node: Some("a"),
            made: None,
        };
        let image = Reference::parse(image).unwrap();
        let mut evidence = around.evidence(&image, own, Some(cause));
        assert!(evidence.len() < 2);
        evidence.pop().map(|one| one.fact)
    }

    #[test]
    fn other_pods_of_the_image_and_of_its_registry_are_witnesses() {
        let own = ("web-1", "a", "r.test/x:v1", false);
        let there = ("web-2", "b", "r.test/x:v1", true);
        let more = ("web-3", "c", "r.test/x:v1", true);
        let fails = ("web-4", "c", "r.test/x:v1", false);
        let twin = ("web-5", "a", "r.test/x:v1", true);
        let other = ("db-1", "b", "r.test/y:v1", true);
        let tag = Cause::TagNotFound;
        for (pods, cause, want) in [
            (
                vec![own, there],
                tag,
                Some(
                    "the same image runs on node b (pod shop/web-2, pulled at 2026-11-30T12:00:00Z): its name was right when it was pulled there; it fails on node a alone",
                ),
            ),
            (
                vec![own, there, more],
                Cause::NoCredentials,
                Some(
                    "the same image runs on node b (pod shop/web-2, pulled at 2026-11-30T12:00:00Z, whose pull secret is \"regcred\") and on another node: its name was right when it was pulled there; it fails on node a alone",
                ),
            ),
            (
                vec![own, fails],
                tag,
                Some("the same image fails on node c too"),
            ),
            (
                vec![own, twin],
                tag,
                Some(
                    "the same image runs on this node (pod shop/web-5, pulled at 2026-11-30T12:00:00Z)",
                ),
            ),
            (vec![own, other], tag, None),
            (
                vec![own, other],
                Cause::ConnectionTimeout,
                Some(
                    "an image of r.test runs on node b (pod shop/db-1, pulled at 2026-11-30T12:00:00Z); it fails on node a alone",
                ),
            ),
            (vec![own], Cause::ConnectionTimeout, None),
        ] {
            let said = say(&around(&pods), "r.test/x:v1", cause);
            assert_eq!(said.as_deref(), want, "{pods:?}");
        }
    }

    #[test]
    fn nothing_is_alone_in_a_list_that_was_cut() {
        let mut around = around(&[
            ("web-1", "a", "r.test/x:v1", false),
            ("web-2", "b", "r.test/x:v1", true),
        ]);
        let alone = |around: &Around, image| {
            let said = say(around, image, Cause::ConnectionTimeout).unwrap();
            assert!(said.contains("runs on node b"), "{said}");
            said.contains("alone")
        };
        for image in ["r.test/x:v1", "r.test/y:v1"] {
            around.cut = false;
            assert!(alone(&around, image));
            around.cut = true;
            assert!(!alone(&around, image));
        }
    }

    #[test]
    fn an_image_that_was_given_out_lately_is_there() {
        let around = around(&[("web-2", "b", "r.test/x", true)]);
        let image = Reference::parse("r.test/x:latest").unwrap();
        let own = |made: &str| Own {
            pod: "shop/web-1",
            node: Some("a"),
            made: made.parse().ok(),
        };
        assert!(around.served_since(&image, own("2026-11-30T11:59:00Z")));
        assert!(!around.served_since(&image, own("2026-11-30T12:01:00Z")));
        let itself = Own {
            pod: "shop/web-2",
            ..own("2026-11-30T11:59:00Z")
        };
        assert!(!around.served_since(&image, itself));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut around = Around::default();
        let state = json!({"waiting": {"reason": "ErrImagePull"}});
        for at in 0..MOST_PLACES + 10 {
            around.take(&pod("x", "a", &format!("r.test/x{at}:v1"), &state));
        }
        assert_eq!(around.images.len(), MOST_PLACES);
        assert_eq!(around.registries.len(), 1);
    }
}
