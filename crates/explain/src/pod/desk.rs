//! One pod's diagnoses: what its view says, weighed with the replay of its pulls.

use towline_cause::{Cause, Confidence};
use towline_keyring::{Candidate, Keyring};
use towline_oci::{Platform, Reference};

use super::container::{self, Container};
use super::words;
use super::{Context, View};
use crate::decide::{self, Facts, NodeView};
use crate::elsewhere::{self, Elsewhere};
use crate::fixes::{self, Ground};
use crate::prober::{NotAsked, Prober};
use crate::proof::{self, Proof};
use crate::scrub::scrub;
use crate::secrets::{self, SecretFact, SecretState};
use crate::world::World;
use crate::{Diagnosis, Evidence, Target, Unread};

/// The most secrets that a pod does not name and that are tried all the same: each costs the registry a replay.
const MAX_SPARE: usize = 5;

/// Where pods are explained: what is asked for one of them is known for all.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) world: World,
    pub(crate) prober: Prober,
    seen_from: String,
    boot_id: Option<String>,
}

impl Desk {
    pub(crate) fn new(context: &Context, many: bool) -> Self {
        Self {
            world: World::new(context.kube.clone(), many),
            prober: Prober::new(context.registry.clone(), context.budget),
            seen_from: context.seen_from.clone(),
            boot_id: context.boot_id.clone(),
        }
    }

    /// Every container of a pod whose image is not there, or that all images are.
    pub(crate) async fn explain(&self, view: &View) -> Vec<Diagnosis> {
        let containers = container::all(&view.pod);
        let mut diagnoses = Vec::new();
        for container in containers.iter().filter(|one| !one.image_is_there()) {
            diagnoses.push(scrub(self.one(view, container).await));
        }
        if diagnoses.is_empty() {
            diagnoses.extend(containers.first().map(|container| running(view, container)));
        }
        diagnoses
    }

    async fn one(&self, view: &View, container: &Container<'_>) -> Diagnosis {
        let target = target(view, container);
        let parsed = Reference::parse(container.image);
        let image = parsed.as_ref().ok();
        let node = container::node_view(view, container);
        let facts = image
            .map(|image| secret_facts(view, image))
            .unwrap_or_default();
        let mut unread: Vec<String> = view.unread.iter().map(Unread::to_string).collect();
        let proof = match image {
            Some(image) if container.may_pull() => self.replay(view, image, &facts).await,
            _ => Err(NotAsked::new()),
        };
        unread.extend(proof.as_ref().err().filter(|why| !why.is_empty()).cloned());
        let proof = proof.ok();
        let spare = match image {
            Some(image) => {
                let asked = (&facts[..], proof.as_ref(), node.as_ref());
                self.spare_secret(view, image, asked, &mut unread).await
            }
            None => None,
        };
        let spare_name = spare.as_ref().map(|spare| spare.name.as_str());
        let seen = (&facts[..], proof.as_ref(), node.as_ref());
        let elsewhere = self.elsewhere(view, (image, container.image), seen).await;
        let verdict = decide::decide(&Facts {
            elsewhere: elsewhere.as_ref(),
            on_node_already: container.always_pulls() && image.is_some_and(|image| view.has(image)),
            bad_reference: parsed.as_ref().err(),
            waiting_reason: container.waiting_reason(),
            node: node.as_ref(),
            secrets: &facts,
            spare_secret: spare_name,
            proof: proof.as_ref(),
        });
        let ground = Ground {
            target: &target,
            image,
            secrets: &facts,
            spare_secret: spare_name,
            elsewhere: elsewhere.as_ref(),
            account_names_it: spare.as_ref().is_some_and(|spare| spare.account_names_it),
            service_account: view.service_account(),
            proof: proof.as_ref(),
        };
        let fixes = fixes::fixes(&ground, &verdict);
        let mut evidence = view.evidence(container, node.as_ref());
        let bad = parsed.as_ref().err();
        evidence.splice(0..0, bad.map(words::reference_evidence));
        evidence.extend(words::secret_evidence(&facts, spare_name));
        evidence.extend(elsewhere.as_ref().map(words::elsewhere_evidence));
        evidence.extend(words::proof_evidence(&self.seen_from, proof.as_ref()));
        let decided = words::secret_summary(&verdict, &facts, spare_name)
            .or_else(|| words::elsewhere_summary(&verdict, elsewhere.as_ref()));
        let summary = decided.unwrap_or_else(|| {
            words::summary(
                &verdict,
                container.image,
                bad,
                proof.as_ref(),
                node.as_ref(),
            )
        });
        Diagnosis {
            pulls: verdict.cause.is_none(),
            cause: verdict.cause,
            step: verdict.step,
            confidence: verdict.confidence,
            summary,
            alternatives: verdict.alternatives,
            evidence,
            steps: proof.map(|proof| proof.steps).unwrap_or_default(),
            retry: container::retry(view, container, verdict.cause),
            fixes,
            unread,
            ..Diagnosis::about(target)
        }
    }

    async fn replay(
        &self,
        view: &View,
        image: &Reference,
        facts: &[SecretFact],
    ) -> Result<Proof, NotAsked> {
        let candidates = candidates(&view.namespace, image, facts);
        let platform = view.node.platform.clone().unwrap_or_else(Platform::host);
        let on_node = self.boot_id.is_some() && self.boot_id == view.node.boot_id;
        let asked = self
            .prober
            .replay(image, &platform, candidates.clone())
            .await?;
        Ok(proof::of_asked(&asked, &candidates, on_node))
    }

    /// Looks for the image where a person may have meant it to be, with the logins of the pod.
    async fn elsewhere(
        &self,
        view: &View,
        (image, written): (Option<&Reference>, &str),
        (facts, proof, node): (&[SecretFact], Option<&Proof>, Option<&NodeView>),
    ) -> Option<Elsewhere> {
        let image = image?;
        let failed = proof.and_then(|proof| proof.failure.as_ref());
        let cause = failed
            .map(|failed| failed.cause)
            .or_else(|| node.map(|node| node.cause))?;
        if !elsewhere::may_be(cause) {
            return None;
        }
        let logins: Vec<String> = facts
            .iter()
            .flat_map(|fact| match &fact.state {
                SecretState::WrongHost(entries) => {
                    entries.iter().map(|(entry, _)| entry.clone()).collect()
                }
                _ => Vec::new(),
            })
            .collect();
        for guess in elsewhere::guesses(image, written, &logins) {
            let Ok(place) = Reference::parse(&guess.image) else {
                continue;
            };
            let facts = secret_facts(view, &place);
            let replayed = self.replay(view, &place, &facts).await;
            if replayed.is_ok_and(|proof| proof.failure.is_none()) {
                return Some(guess);
            }
        }
        None
    }

    /// Looks for a secret of the namespace that the pod does not name and that the registry accepts.
    async fn spare_secret(
        &self,
        view: &View,
        image: &Reference,
        (facts, proof, node): (&[SecretFact], Option<&Proof>, Option<&NodeView>),
        unread: &mut Vec<String>,
    ) -> Option<Spare> {
        let offered = |fact: &SecretFact| matches!(fact.state, SecretState::Matches(_));
        let failed = proof
            .and_then(|proof| proof.failure.as_ref())
            .map(|failed| failed.cause);
        let cause = failed.or_else(|| node.map(|node| node.cause))?;
        if facts.iter().any(offered) || cause != Cause::NoCredentials {
            return None;
        }
        let namespace = &view.namespace;
        let secrets = match self.world.pull_secrets(namespace).await {
            Ok(secrets) => secrets,
            Err(why) => {
                let unknown = Unread {
                    what: format!("the pull secrets of namespace {namespace}"),
                    why,
                    cost: "whether one that the pod does not name would do stays unknown"
                        .to_owned(),
                };
                unread.push(unknown.to_string());
                return None;
            }
        };
        let matching = secrets.iter().filter_map(|secret| {
            let state = secrets::judge(image, secret);
            let name = secret.metadata.name.clone()?;
            matches!(state, SecretState::Matches(_)).then_some(SecretFact { name, state })
        });
        for fact in matching.take(MAX_SPARE) {
            let replayed = self.replay(view, image, std::slice::from_ref(&fact)).await;
            if replayed.is_ok_and(|proof| proof.failure.is_none()) {
                let account = view.service_account();
                let named = self.world.account_secrets(namespace, account).await;
                return Some(Spare {
                    account_names_it: named.is_ok_and(|names| names.contains(&fact.name)),
                    name: fact.name,
                });
            }
        }
        None
    }
}

/// A secret that the pod does not name and that would do.
struct Spare {
    name: String,
    /// Whether the pod's service account names it by now, so that a new pod would have it.
    account_names_it: bool,
}

fn running(view: &View, container: &Container<'_>) -> Diagnosis {
    let fact = format!(
        "every image of the pod is on node {}",
        view.node_name().unwrap_or("-")
    );
    Diagnosis {
        pulls: true,
        confidence: Confidence::Proven,
        summary: fact.clone(),
        evidence: vec![Evidence {
            fact,
            seen_from: "the cluster's API".into(),
            seen_by: "kubelet".into(),
        }],
        ..Diagnosis::about(Target {
            container: None,
            ..target(view, container)
        })
    }
}

fn target(view: &View, container: &Container<'_>) -> Target {
    Target {
        kind: view.kind.clone(),
        namespace: Some(view.namespace.clone()),
        name: view.name.clone(),
        container: Some(container.name.to_owned()),
        init: container.init,
        image: container.image.to_owned(),
        node: view.node_name().map(str::to_owned),
        owner: view.owner.clone(),
    }
}

fn secret_facts(view: &View, image: &Reference) -> Vec<SecretFact> {
    let judged = view.secrets.iter().map(|(name, found)| SecretFact {
        name: name.clone(),
        state: match found {
            Ok(Some(secret)) => secrets::judge(image, secret),
            Ok(None) => SecretState::Missing,
            Err(why) => SecretState::Unreadable(why.clone()),
        },
    });
    judged.collect()
}

/// The credentials that the kubelet would try, in its order.
fn candidates(namespace: &str, image: &Reference, facts: &[SecretFact]) -> Vec<Candidate> {
    let mut ring = Keyring::new();
    for fact in facts {
        if let SecretState::Matches(keys) = &fact.state {
            ring.add(keys, &secrets::source(namespace, &fact.name));
        }
    }
    ring.lookup(image)
}
