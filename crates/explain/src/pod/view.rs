//! A pod and everything that belongs to it, as the cluster's API says.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;
use towline_cause::Cause;

use super::container::{self, Container};
use super::words::without_suffix;
use crate::decide::NodeView;
use crate::scan::{NoPods, Template};
use crate::speaker;
use crate::world::{Answer, Around, NodeFact, Own, Said, World};
use crate::{Evidence, Owner, Unread};

/// One pod, or a workload's template as the pod that it would make.
#[derive(Debug)]
pub(crate) struct View {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `Pod`, or the kind of the workload whose template this is.
    pub(super) kind: String,
    pub(super) pod: Pod,
    pub(super) owner: Option<Owner>,
    pub(super) events: Vec<Said>,
    pub(super) secrets: Vec<(String, Answer<Option<Arc<Secret>>>)>,
    pub(super) node: NodeFact,
    /// What other pods say.
    around: Arc<Around>,
    /// Why there is no pod, where this is a workload's template.
    pub(super) no_pods: Option<NoPods>,
    pub(super) unread: Vec<Unread>,
}

impl View {
    /// `around` holds what other pods say, where they were read already.
    pub(crate) async fn of_pod(world: &World, pod: Pod, around: Option<Arc<Around>>) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        let (owner, unknown) = world.owner(&namespace, &pod).await;
        let mut view = Self::read(world, namespace, ("Pod", pod), owner, around).await;
        view.unread.extend(unknown.map(|unknown| Unread {
            what: unknown.what,
            why: unknown.why,
            cost: "the fix may be for the wrong object".to_owned(),
        }));
        view
    }

    /// The pod that a workload without pods would make.
    pub(crate) async fn of_template(
        world: &World,
        Template {
            workload,
            mut pod,
            no_pods,
        }: Template,
    ) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        pod.metadata.name = Some(workload.name.clone());
        let mut unread = None;
        if let Some(spec) = &mut pod.spec
            && spec.image_pull_secrets.iter().flatten().next().is_none()
        {
            let account = spec.service_account_name.as_deref().unwrap_or("default");
            match world.account_secrets(&namespace, account).await {
                Ok(names) => {
                    let named =
                        names
                            .iter()
                            .map(|name| k8s_openapi::api::core::v1::LocalObjectReference {
                                name: name.clone(),
                            });
                    spec.image_pull_secrets = Some(named.collect());
                }
                Err(why) => {
                    unread = Some(Unread {
                        what: format!("service account {namespace}/{account}"),
                        why,
                        cost: "the secrets that it gives to pods stay unknown".to_owned(),
                    });
                }
            }
        }
        let kind = workload.kind.clone();
        let mut view = Self::read(world, namespace, (&kind, pod), Some(workload), None).await;
        view.unread.extend(unread);
        view.no_pods = Some(no_pods);
        view
    }

    async fn read(
        world: &World,
        namespace: String,
        (kind, pod): (&str, Pod),
        owner: Option<Owner>,
        around: Option<Arc<Around>>,
    ) -> Self {
        let mut view = Self {
            name: pod.name_any(),
            kind: kind.to_owned(),
            owner,
            events: Vec::new(),
            secrets: Vec::new(),
            node: NodeFact::default(),
            around: Arc::default(),
            no_pods: None,
            unread: Vec::new(),
            namespace,
            pod,
        };
        let (events, secrets, node, around) = futures::join!(
            view.read_events(world),
            view.read_secrets(world),
            view.read_node(world),
            view.read_around(world, around)
        );
        view.take_around(around);
        view.take_events(events);
        view.take_secrets(secrets);
        view.take_node(node);
        view
    }

    /// Whether the node has this image, by its own list.
    pub(super) fn has(&self, image: &towline_oci::Reference) -> bool {
        let name = image.clone().with_default_tag().to_string();
        self.node.images.contains(&name)
    }

    /// The events, unless our kubelet's own record says more than they do.
    async fn read_events(&self, world: &World) -> Answer<Vec<Said>> {
        let silent = container::all(&self.pod)
            .iter()
            .any(|container| !container.image_is_there() && !container::recorded(self, container));
        if self.kind != "Pod" || !silent {
            return Ok(Vec::new());
        }
        world.events(&self.namespace, &self.pod).await
    }

    fn take_events(&mut self, events: Answer<Vec<Said>>) {
        match events {
            Ok(events) => self.events = events,
            Err(why) => self.note(
                "events".to_owned(),
                why,
                "earlier errors and attempts stay unknown",
            ),
        }
    }

    async fn read_secrets(&self, world: &World) -> Vec<(String, Answer<Option<Arc<Secret>>>)> {
        let spec = self.pod.spec.iter();
        let named = spec.flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let names = named
            .map(|reference| reference.name.clone())
            .filter(|name| !name.is_empty());
        let read = names.map(async |name| {
            let found = world.secret(&self.namespace, &name).await;
            (name, found)
        });
        futures::future::join_all(read).await
    }

    fn take_secrets(&mut self, secrets: Vec<(String, Answer<Option<Arc<Secret>>>)>) {
        for (name, found) in &secrets {
            if let Err(why) = found {
                self.note(
                    format!("secret {}/{name}", self.namespace),
                    why.clone(),
                    "whether its login is right stays unknown",
                );
            }
        }
        self.secrets = secrets;
    }

    async fn read_node(&self, world: &World) -> Option<Answer<NodeFact>> {
        Some(world.node(self.node_name()?).await)
    }

    fn take_node(&mut self, node: Option<Answer<NodeFact>>) {
        match node {
            Some(Ok(node)) => self.node = node,
            Some(Err(why)) => self.note(
                format!("node {}", self.node_name().unwrap_or_default()),
                why,
                "its platform is taken to be that of this machine",
            ),
            None => {}
        }
    }

    /// Other pods, where one image of this one is not there.
    async fn read_around(
        &self,
        world: &World,
        known: Option<Arc<Around>>,
    ) -> Option<Answer<Arc<Around>>> {
        if let Some(known) = known {
            return Some(Ok(known));
        }
        let all = container::all(&self.pod);
        let broken = all.iter().any(|container| !container.image_is_there());
        if broken {
            Some(world.around(&self.namespace).await)
        } else {
            None
        }
    }

    fn take_around(&mut self, around: Option<Answer<Arc<Around>>>) {
        match around {
            Some(Ok(around)) => self.around = around,
            Some(Err(why)) => self.note(
                format!("the other pods of namespace {}", self.namespace),
                why,
                "whether the image runs elsewhere stays unknown",
            ),
            None => {}
        }
    }

    fn own<'a>(&'a self, pod: &'a str) -> Own<'a> {
        let made = self.pod.metadata.creation_timestamp.as_ref();
        Own {
            pod,
            node: self.node_name(),
            made: made.map(|time| time.0),
        }
    }

    /// Whether another pod got this image from the registry after this pod had been made.
    pub(super) fn served_since(&self, image: &towline_oci::Reference) -> bool {
        let pod = format!("{}/{}", self.namespace, self.name);
        self.around.served_since(image, self.own(&pod))
    }

    /// What other pods say of an image.
    pub(super) fn witnesses(
        &self,
        image: &towline_oci::Reference,
        cause: Option<Cause>,
    ) -> Vec<Evidence> {
        let pod = format!("{}/{}", self.namespace, self.name);
        self.around.evidence(image, self.own(&pod), cause)
    }

    pub(super) fn note(&mut self, what: String, why: String, cost: &str) {
        self.unread.push(Unread {
            what,
            why,
            cost: cost.to_owned(),
        });
    }

    pub(super) fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref()
    }

    pub(super) fn service_account(&self) -> &str {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default")
    }

    /// That there is no pod, and why, behind the sentence that the image pulls.
    pub(super) fn with_no_pods(&self, summary: String, cause: Option<Cause>) -> String {
        match self.no_pods.as_ref().filter(|_| cause.is_none()) {
            Some(no_pods) => format!("{summary}; {}", no_pods.words()),
            None => summary,
        }
    }

    /// What node and kubelet said of this container.
    pub(super) fn evidence(
        &self,
        container: &Container<'_>,
        node: Option<&NodeView>,
    ) -> Vec<Evidence> {
        let from = self.node_name().map_or_else(
            || "the cluster's API".to_owned(),
            |name| format!("node {name}"),
        );
        let line = |fact: String, seen_by: String| Evidence {
            fact,
            seen_from: from.clone(),
            seen_by,
        };
        let kubelet = |fact: String| line(fact, "kubelet".to_owned());
        let mut lines = Vec::new();
        lines.extend(container.part().map(|fact| Evidence {
            fact,
            seen_from: "the pod's spec".to_owned(),
            seen_by: "towline".to_owned(),
        }));
        lines.extend(self.no_pods.as_ref().map(NoPods::evidence));
        if let Some(reason) = container.waiting_reason() {
            lines.push(kubelet(format!("the container waits: {reason}")));
        }
        // What a controller was told of pods that it could not make stands above.
        let said = node.filter(|node| !node.text.is_empty() && self.no_pods.is_none());
        lines.extend(said.map(|node| {
            let speaker = speaker::of(&node.text, self.node.runtime.as_deref());
            line(without_suffix(&node.text), speaker)
        }));
        lines.extend(self.node.troubles.iter().cloned().map(kubelet));
        // A report about a runtime is worth little without its version; ours says so itself.
        let foreign = |runtime: &&String| !runtime.starts_with("towline://");
        if let Some(runtime) = self.node.runtime.as_ref().filter(foreign) {
            lines.push(kubelet(format!("the node pulls with {runtime}")));
        }
        lines
    }
}
