//! Deployments: one replica set a template, moved from the old ones to the new one step by step.

mod history;
mod rolling;
mod status;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use template::{HASH_LABEL, hash};

use crate::owner;

/// The annotation that counts the templates of a Deployment.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a template that was taken again.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// What the Deployment wanted when the replica set was scaled last.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// What the Deployment allowed at most then.
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a Deployment needs now. The steps after it follow when the replica sets have moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// A replica set to create.
    pub create: Option<ReplicaSet>,
    /// replica sets to change.
    pub update: Vec<Update>,
    /// replica sets to delete: past the limit of the history.
    pub delete: Vec<String>,
    /// The revision to write to the Deployment.
    pub revision: Option<String>,
    /// The status to write.
    pub status: DeploymentStatus,
    /// When time alone may change the plan.
    pub again: Option<Duration>,
}

/// A change of a replica set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Its name.
    pub name: String,
    /// From how many replicas to how many, when that changes.
    pub scale: Option<(i32, i32)>,
    /// Annotations to set.
    pub annotations: BTreeMap<String, String>,
}

/// Everything that a decision looks at.
struct View<'a> {
    deployment: &'a Deployment,
    desired: i32,
    max_surge: i32,
    max_unavailable: i32,
    paused: bool,
    recreate: bool,
    /// The replica set of the template that is wanted.
    new: Option<&'a ReplicaSet>,
    /// The others, oldest first.
    old: Vec<&'a ReplicaSet>,
}

/// Decides for a Deployment. `sets` are the replica sets of its namespace; `old_pods` says whether pods of a replica set,
/// named by uid, still run or end.
pub fn plan(
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    old_pods: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Plan {
    let Some(view) = View::new(deployment, sets) else {
        return Plan::default();
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        let status = deployment.status.clone().unwrap_or_default();
        return Plan {
            status,
            ..Plan::default()
        };
    }
    let mut plan = Plan::default();
    if view.paused || view.is_scaling() {
        view.scale(&mut plan);
    } else if view.recreate {
        view.recreate(&mut plan, old_pods);
    } else {
        view.roll(&mut plan);
    }
    if !view.paused {
        view.annotate_new(&mut plan);
    }
    let (status, again) = status::status(&view, plan.create.as_ref(), now);
    plan.status = status;
    plan.again = again;
    if !view.paused && status::complete(&view, &plan.status) {
        plan.delete = history::surplus(&view);
    }
    let written = revision_of(&deployment.metadata);
    let current = match (&plan.create, view.new) {
        (Some(created), _) => revision_of(&created.metadata),
        (None, Some(new)) => {
            let update = plan
                .update
                .iter()
                .find(|update| Some(&update.name) == new.metadata.name.as_ref());
            let updated = update
                .and_then(|update| update.annotations.get(REVISION))
                .and_then(|text| text.parse().ok());
            updated.unwrap_or_else(|| revision_of(&new.metadata))
        }
        (None, None) => written,
    };
    plan.revision = Some(current.to_string()).filter(|_| current != written);
    plan
}

impl<'a> View<'a> {
    fn new(deployment: &'a Deployment, sets: &[&'a ReplicaSet]) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let recreate = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let (max_surge, max_unavailable) = rolling::bounds(
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            desired,
        );
        let mut owned: Vec<&ReplicaSet> = sets
            .iter()
            .copied()
            .filter(|set| owner::is_controlled_by(&set.metadata, uid))
            .collect();
        owned.sort_by_key(|set| {
            (
                set.metadata.creation_timestamp.as_ref().map(|time| time.0),
                set.metadata.name.clone(),
            )
        });
        // The oldest wins where several ReplicaSets have the template.
        let place = owned
            .iter()
            .position(|set| template::is_of(deployment, set));
        let new = place.map(|place| owned.remove(place));
        Some(Self {
            deployment,
            desired,
            max_surge: if recreate { 0 } else { max_surge },
            max_unavailable: if recreate { desired } else { max_unavailable },
            paused: spec.paused == Some(true),
            recreate,
            new,
            old: owned,
        })
    }

    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        self.old.iter().copied().chain(self.new)
    }

    /// The revision that the wanted template has to have: above all others.
    fn next_revision(&self) -> i64 {
        self.old
            .iter()
            .map(|set| revision_of(&set.metadata))
            .max()
            .unwrap_or(0)
            + 1
    }

    /// Whether the wanted number changed since the replica sets that run were scaled.
    fn is_scaling(&self) -> bool {
        let running = self.all().filter(|set| replicas(set) > 0);
        running.into_iter().any(|set| {
            let written = set
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(DESIRED));
            written
                .and_then(|text| text.parse::<i32>().ok())
                .is_some_and(|written| written != self.desired)
        })
    }

    /// The annotations of a replica set that is scaled.
    fn scale_annotations(&self) -> BTreeMap<String, String> {
        let most = self.desired + self.max_surge;
        BTreeMap::from([
            (DESIRED.to_owned(), self.desired.to_string()),
            (MAX.to_owned(), most.to_string()),
        ])
    }

    fn resize(&self, plan: &mut Plan, set: &ReplicaSet, to: i32) {
        let from = replicas(set);
        plan.update.push(Update {
            name: set.metadata.name.clone().unwrap_or_default(),
            scale: Some((from, to)).filter(|_| from != to),
            annotations: self.scale_annotations(),
        });
    }

    /// Follows a changed number of replicas without moving between templates.
    fn scale(&self, plan: &mut Plan) {
        let running: Vec<&ReplicaSet> = self.all().filter(|set| replicas(set) > 0).collect();
        let sizes: Vec<i32> = running.iter().map(|set| replicas(set)).collect();
        let target = if running.len() <= 1 || self.recreate {
            self.desired
        } else {
            self.desired + self.max_surge
        };
        match (running.as_slice(), self.new) {
            ([], Some(new)) if self.desired > 0 => self.resize(plan, new, self.desired),
            _ => {
                for (set, size) in running.iter().zip(rolling::proportional(&sizes, target)) {
                    let annotated = set
                        .metadata
                        .annotations
                        .as_ref()
                        .and_then(|annotations| annotations.get(DESIRED));
                    if size != replicas(set) || annotated != Some(&self.desired.to_string()) {
                        self.resize(plan, set, size);
                    }
                }
            }
        }
    }

    fn roll(&self, plan: &mut Plan) {
        let total: i32 = self.all().map(replicas).sum();
        let Some(new) = self.new else {
            let size = rolling::scale_up(0, total, self.desired, self.max_surge);
            plan.create = Some(self.new_set(size));
            return;
        };
        let size = rolling::new_size(replicas(new), total, self.desired, self.max_surge);
        if size != replicas(new) {
            return self.resize(plan, new, size);
        }
        let counts: Vec<(i32, i32)> = self
            .old
            .iter()
            .map(|set| (replicas(set), available(set)))
            .collect();
        let sizes = rolling::old_sizes(
            &counts,
            (replicas(new), available(new)),
            self.desired,
            self.max_unavailable,
        );
        for (set, size) in self.old.iter().zip(sizes) {
            if size != replicas(set) {
                self.resize(plan, set, size);
            }
        }
    }

    fn recreate(&self, plan: &mut Plan, old_pods: impl Fn(&str) -> bool) {
        for set in self.old.iter().filter(|set| replicas(set) > 0) {
            self.resize(plan, set, 0);
        }
        let running = |set: &&ReplicaSet| set.metadata.uid.as_deref().is_some_and(&old_pods);
        if !plan.update.is_empty() || self.old.iter().any(running) {
            return;
        }
        match self.new {
            None => plan.create = Some(self.new_set(self.desired)),
            Some(new) if replicas(new) != self.desired => self.resize(plan, new, self.desired),
            Some(_) => {}
        }
    }

    /// Brings the revision and the copied annotations of the new replica set up to date.
    fn annotate_new(&self, plan: &mut Plan) {
        let Some(new) = self.new else { return };
        let held = new.metadata.annotations.clone().unwrap_or_default();
        let mut wanted = self.copied_annotations();
        let (has, next) = (revision_of(&new.metadata), self.next_revision());
        if has < next {
            wanted.insert(REVISION.to_owned(), next.to_string());
            if has > 0 {
                let before = held
                    .get(REVISION_HISTORY)
                    .map(|before| format!("{before},"))
                    .unwrap_or_default();
                wanted.insert(REVISION_HISTORY.to_owned(), format!("{before}{has}"));
            }
        }
        wanted.retain(|key, value| held.get(key) != Some(value));
        if wanted.is_empty() {
            return;
        }
        let name = new.metadata.name.clone().unwrap_or_default();
        match plan.update.iter_mut().find(|update| update.name == name) {
            Some(update) => update.annotations.extend(wanted),
            None => plan.update.push(Update {
                name,
                scale: None,
                annotations: wanted,
            }),
        }
    }

    /// The Deployment's annotations that its replica sets carry too.
    fn copied_annotations(&self) -> BTreeMap<String, String> {
        let own = self
            .deployment
            .metadata
            .annotations
            .clone()
            .unwrap_or_default();
        let kept =
            |key: &str| ![LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX].contains(&key);
        own.into_iter().filter(|(key, _)| kept(key)).collect()
    }

    fn new_set(&self, size: i32) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count)
            .unwrap_or(0);
        let hash = hash(&spec.template, collisions);
        let mut template = spec.template;
        let labels = template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector;
        selector
            .match_labels
            .get_or_insert_default()
            .insert(HASH_LABEL.to_owned(), hash.clone());
        let mut annotations = self.copied_annotations();
        annotations.extend(self.scale_annotations());
        annotations.insert(REVISION.to_owned(), self.next_revision().to_string());
        let metadata = &self.deployment.metadata;
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}-{hash}",
                    metadata.name.as_deref().unwrap_or_default()
                )),
                namespace: metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![owner::reference("apps/v1", "Deployment", metadata)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }
}

/// The revision written on an object; 0 if there is none.
fn revision_of(metadata: &ObjectMeta) -> i64 {
    let annotations = metadata.annotations.as_ref();
    let written = annotations.and_then(|annotations| annotations.get(REVISION));
    written.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The replicas that a replica set is told to have.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// The replicas that are available.
fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
