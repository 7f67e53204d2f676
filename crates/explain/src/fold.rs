//! Many diagnoses, few answers: what fails for one reason is one.

use std::collections::{BTreeMap, BTreeSet};

use towline_cause::{Cause, Group};
use towline_oci::Reference;

use crate::{Affected, Diagnosis, Fix};

/// The most names that an answer lists of one sort.
const MOST_NAMES: usize = 200;
/// The most commands that a fix of many workloads lists.
const MOST_COMMANDS: usize = 20;

/// Diagnoses, put together as they come.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    groups: BTreeMap<Key, Folded>,
    broken: BTreeSet<String>,
    undecided: BTreeSet<String>,
}

/// What diagnoses share that are one answer: the cause, and the thing that a person would look at or change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pulls: bool,
    cause: Option<&'static str>,
    step: Option<&'static str>,
    subject: String,
}

#[derive(Debug)]
struct Folded {
    shown: Diagnosis,
    fixes: Vec<Fix>,
    unread: BTreeSet<String>,
    pods: BTreeSet<String>,
    nodes: BTreeSet<String>,
    workloads: BTreeSet<String>,
    alone: BTreeSet<String>,
    images: BTreeSet<String>,
}

impl Fold {
    pub(crate) fn take(&mut self, diagnosis: Diagnosis) {
        let pod = pod_name(&diagnosis);
        if !diagnosis.pulls && is_pod(&diagnosis) {
            match diagnosis.cause {
                Some(Cause::Unknown) | None => self.undecided.insert(pod),
                Some(_) => self.broken.insert(pod),
            };
        }
        match self.groups.entry(key(&diagnosis)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Folded::new(diagnosis));
            }
            std::collections::btree_map::Entry::Occupied(mut group) => {
                group.get_mut().add(diagnosis);
            }
        }
    }

    /// Pods of which an image does not pull, and those for which only that is known.
    pub(crate) fn pods(&self) -> (usize, usize) {
        let only = self.undecided.difference(&self.broken).count();
        (self.broken.len(), only)
    }

    /// The answers: most pods first, then most workloads, then those that waiting does not mend.
    pub(crate) fn finish(self) -> Vec<Diagnosis> {
        let mut groups: Vec<(Key, Folded)> = self.groups.into_iter().collect();
        groups.sort_by(|(key_a, a), (key_b, b)| {
            let harm = |one: &Folded| (!one.shown.pulls, one.pods.len(), one.workloads.len());
            let lasting = |one: &Folded| one.shown.cause.is_some_and(|cause| !cause.transient());
            harm(b)
                .cmp(&harm(a))
                .then(lasting(b).cmp(&lasting(a)))
                .then(key_a.cmp(key_b))
        });
        groups
            .into_iter()
            .map(|(_, group)| group.finish())
            .collect()
    }
}

impl Folded {
    fn new(mut diagnosis: Diagnosis) -> Self {
        let mut folded = Self {
            fixes: std::mem::take(&mut diagnosis.fixes),
            unread: std::mem::take(&mut diagnosis.unread).into_iter().collect(),
            pods: BTreeSet::new(),
            nodes: BTreeSet::new(),
            workloads: BTreeSet::new(),
            alone: BTreeSet::new(),
            images: BTreeSet::new(),
            shown: diagnosis,
        };
        let shown = folded.shown.clone();
        folded.count(&shown);
        folded
    }

    fn add(&mut self, mut other: Diagnosis) {
        self.count(&other);
        self.unread.extend(std::mem::take(&mut other.unread));
        // Once a registry has said that it is asked too often it is not asked for the others.
        let limit = match (self.shown.rate_limit.take(), other.rate_limit.take()) {
            (Some(one), Some(another)) => Some(one.and(&another)),
            (one, another) => one.or(another),
        };
        for fix in std::mem::take(&mut other.fixes) {
            self.merge(fix);
        }
        // The surest speaks for all; of equals the first by name, so that the answer does not depend on who was quicker.
        let better = other.confidence.cmp(&self.shown.confidence);
        if better
            .then_with(|| pod_name(&self.shown).cmp(&pod_name(&other)))
            .is_gt()
        {
            self.shown = other;
        }
        self.shown.rate_limit = limit;
    }

    fn count(&mut self, one: &Diagnosis) {
        let target = &one.target;
        if is_pod(one) {
            self.pods.insert(pod_name(one));
            if target.owner.is_none() {
                self.alone.insert(pod_name(one));
            }
        }
        self.nodes.extend(target.node.clone());
        self.images.insert(target.image.clone());
        let namespace = target.namespace.as_deref().unwrap_or_default();
        if let Some(owner) = &target.owner {
            let kind = owner.kind.to_lowercase();
            self.workloads
                .insert(format!("{namespace}/{kind}/{}", owner.name));
        }
    }

    /// The same change for another workload belongs to the same fix.
    fn merge(&mut self, fix: Fix) {
        let same = self
            .fixes
            .iter_mut()
            .find(|known| known.description == fix.description);
        let Some(known) = same else {
            if self.fixes.len() < MOST_COMMANDS {
                self.fixes.push(fix);
            }
            return;
        };
        known.certain &= fix.certain;
        for command in fix.commands {
            if !known.commands.contains(&command) && known.commands.len() < MOST_COMMANDS {
                known.commands.push(command);
            }
        }
        for file in fix.files {
            if !known.files.contains(&file) && known.files.len() < MOST_COMMANDS {
                known.files.push(file);
            }
        }
        for action in fix.actions {
            if !known.actions.contains(&action) {
                known.actions.push(action);
            }
        }
    }

    fn finish(self) -> Diagnosis {
        let most = |names: BTreeSet<String>| names.into_iter().take(MOST_NAMES).collect();
        Diagnosis {
            fixes: self.fixes,
            unread: self.unread.into_iter().collect(),
            affected: Some(Affected {
                count: self.pods.len(),
                pods: most(self.pods),
                nodes: most(self.nodes),
                workloads: most(self.workloads),
                alone: most(self.alone),
                images: most(self.images),
            }),
            ..self.shown
        }
    }
}

/// What is not the template of a workload without pods.
fn is_pod(diagnosis: &Diagnosis) -> bool {
    diagnosis.target.kind == "Pod"
}

fn pod_name(diagnosis: &Diagnosis) -> String {
    let target = &diagnosis.target;
    let namespace = target.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", target.name)
}

fn key(diagnosis: &Diagnosis) -> Key {
    Key {
        pulls: diagnosis.pulls,
        cause: diagnosis.cause.map(Cause::name),
        step: diagnosis.step.map(towline_cause::Step::name),
        subject: if diagnosis.pulls {
            String::new()
        } else {
            subject(diagnosis)
        },
    }
}

/// The thing that is wrong: an image, a registry, a secret, a node.
fn subject(diagnosis: &Diagnosis) -> String {
    let target = &diagnosis.target;
    let image = &target.image;
    let registry = Reference::parse(image).map_or_else(
        |_| image.clone(),
        |reference| reference.registry().to_owned(),
    );
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let Some(cause) = diagnosis.cause else {
        return image.clone();
    };
    match cause.group() {
        Group::Network | Group::Tls | Group::Registry => registry,
        Group::Refused if cause == Cause::RateLimited => registry,
        // Which secret it is stands in the sentence.
        Group::Credentials if cause.steps().contains(&towline_cause::Step::Credentials) => {
            format!("{namespace} {registry} {}", diagnosis.summary)
        }
        Group::Credentials => format!("{namespace} {registry}"),
        Group::Node => target.node.clone().unwrap_or_default(),
        Group::Unknown => format!("{image} {}", diagnosis.summary),
        _ => image.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Owner, Target};
    use towline_cause::Confidence;

    fn of(pod: usize, image: &str, cause: Cause, summary: &str) -> Diagnosis {
        let target = Target {
            kind: "Pod".into(),
            namespace: Some("shop".into()),
            name: format!("web-{pod}"),
            container: Some("app".into()),
            init: false,
            image: image.into(),
            node: Some(format!("n{}", pod % 3)),
            owner: Some(Owner {
                kind: "Deployment".into(),
                name: format!("web{}", pod % 2),
            }),
        };
        Diagnosis {
            cause: Some(cause),
            step: cause.steps().first().copied(),
            confidence: Confidence::Stated,
            summary: summary.into(),
            ..Diagnosis::about(target)
        }
    }

    #[test]
    fn what_fails_for_one_reason_is_one_answer_and_most_harm_comes_first() {
        let mut fold = Fold::default();
        for pod in 0..10 {
            fold.take(of(pod, "a.test/x:v1", Cause::TagNotFound, "no tag v1"));
        }
        for pod in 10..40 {
            let image = format!("b.test/y{pod}:v1");
            fold.take(of(pod, &image, Cause::RateLimited, "429"));
        }
        let mut sure = of(5, "a.test/x:v1", Cause::TagNotFound, "proven so");
        sure.confidence = Confidence::Proven;
        fold.take(sure);
        fold.take(of(99, "c.test/z:v1", Cause::Unknown, "?"));
        assert_eq!(fold.pods(), (40, 1));
        let answers = fold.finish();
        let causes: Vec<_> = answers.iter().map(|one| one.cause.unwrap()).collect();
        assert_eq!(
            causes,
            [Cause::RateLimited, Cause::TagNotFound, Cause::Unknown]
        );
        let affected = answers[0].affected.as_ref().unwrap();
        assert_eq!((affected.count, affected.nodes.len()), (30, 3));
        assert_eq!(
            affected.workloads,
            ["shop/deployment/web0", "shop/deployment/web1"]
        );
        assert_eq!(affected.images.len(), 30);
        assert_eq!(answers[1].summary, "proven so", "the surest speaks for all");
    }

    #[test]
    fn a_fix_of_two_workloads_has_both_commands() {
        let mut fold = Fold::default();
        for (pod, command) in [(0, "set a"), (1, "set b"), (2, "set a")] {
            let mut one = of(pod, "a.test/x:v1", Cause::TagNotFound, "no tag v1");
            one.fixes.push(Fix {
                description: "Use v2".into(),
                commands: vec![command.into()],
                who: vec![],
                certain: true,
                actions: vec![],
                files: vec![],
                confirm: None,
            });
            fold.take(one);
        }
        assert_eq!(fold.finish()[0].fixes[0].commands, ["set a", "set b"]);
    }
}
