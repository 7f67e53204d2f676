//! One pod's diagnoses: what its view says, weighed with the replay of its pulls.

use std::sync::Arc;

use jiff::Timestamp;
use towline_cause::{Cause, Confidence};
use towline_keyring::{Candidate, Keyring};
use towline_oci::{Platform, Reference, ReferenceError};

use super::container::{self, Container, Role};
use super::words;
use super::{Context, View};
use crate::decide::{self, Facts, NodeView, further};
use crate::decider;
use crate::elsewhere::{self, Elsewhere};
use crate::expiry::Ends;
use crate::eye::{Eye, Wanted};
use crate::fixes::{self, Ground};
use crate::limit;
use crate::prober::{Asked, How, NotAsked, Prober, Pull};
use crate::proof::{self, Proof};
use crate::retired;
use crate::scrub::scrub;
use crate::secrets::{self, SecretFact, SecretState};
use crate::views;
use crate::world::{NodeClock, World};
use crate::{Diagnosis, Evidence, Sight, Target, Unread};

/// The most secrets that a pod does not name and that are tried all the same: each costs the registry a replay.
const MAX_SPARE: usize = 5;

/// Where pods are explained: what is asked for one of them is known for all.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) world: World,
    pub(crate) prober: Arc<Prober>,
    seen_from: String,
    boot_id: Option<String>,
    eye: Option<Arc<Eye>>,
}

impl Desk {
    pub(crate) fn new(context: &Context, many: bool) -> Self {
        let deep = context.deep.clone();
        let prober = Prober::new(context.registry.clone(), context.budget, deep);
        Self::with(context, many, Arc::new(prober))
    }

    /// A desk that knows what was asked before.
    pub(crate) fn with(context: &Context, many: bool, prober: Arc<Prober>) -> Self {
        Self {
            world: World::new(context.kube.clone(), many),
            prober,
            seen_from: context.seen_from.clone(),
            boot_id: context.boot_id.clone(),
            eye: context.eye.clone(),
        }
    }

    /// Every container of a pod whose image is not there, or that all images are.
    pub(crate) async fn explain(&self, view: &View) -> Vec<Diagnosis> {
        let containers = container::all(&view.pod);
        let mut diagnoses = Vec::new();
        for container in containers.iter().filter(|one| !one.image_is_there()) {
            diagnoses.push(scrub(Box::pin(self.one(view, container)).await));
        }
        if diagnoses.is_empty() {
            diagnoses.extend(containers.first().map(|container| running(view, container)));
        }
        diagnoses
    }

    async fn one(&self, view: &View, container: &Container<'_>) -> Diagnosis {
        let target = target(view, container);
        let asked = container::sandbox_image(view, container);
        let parsed = Reference::parse(asked.as_deref().unwrap_or(container.image));
        let (image, bad) = (parsed.as_ref().ok(), parsed.as_ref().err());
        let found = self.gather(view, container, image).await;
        let (proof, node) = (found.proof.as_ref(), found.node.as_ref());
        let spare_name = found.spare.as_deref();
        // What is said of an earlier image is not said of this one.
        let of_this = !container::of_another_image(container);
        let waiting_reason = container.waiting_reason().filter(|_| of_this);
        let facts = Facts {
            elsewhere: found.elsewhere.as_ref(),
            on_node_already: container.always_pulls() && image.is_some_and(|image| view.has(image)),
            bad_reference: bad,
            waiting_reason,
            node,
            secrets: &found.facts,
            spare_secret: spare_name,
            logins_expired: found.ends.all_over(),
            node_clock: found.clock.as_ref().map(NodeClock::stands),
            served_since: image.is_some_and(|image| view.served_since(image)),
            proof,
        };
        let verdict = decide::decide(&facts);
        let (silent, over) = (further::silent(&facts), further::over(node, proof));
        let account = self.account(view, verdict.cause).await;
        let free_name = self.free_name(view, image, verdict.cause).await;
        let ground = Ground {
            target: &target,
            image,
            secrets: &found.facts,
            spare_secret: spare_name,
            elsewhere: found.elsewhere.as_ref(),
            service_account: view.service_account(),
            account_secrets: account.as_deref(),
            free_name: free_name.as_deref(),
            proof,
            runtime: view.node.runtime.as_deref(),
        };
        let retry = container::retry(view, container, verdict.cause, over || silent);
        let fixes = if over || silent {
            vec![words::next_attempt(&target, retry.as_ref())]
        } else if further::may_be_unread(verdict.cause, &found.facts) {
            vec![words::look_at_secrets(&target, &found.facts)]
        } else {
            fixes::fixes(&ground, &verdict)
        };
        let mut evidence = evidence(view, container, &found, (image, bad), verdict.cause);
        let (rate_limit, counted) = limit::of(proof, verdict.cause, image);
        evidence.extend(counted);
        let decided = words::secret_summary(&verdict, &found.facts, spare_name)
            .or_else(|| words::elsewhere_summary(&verdict, found.elsewhere.as_ref()));
        let open = words::open_summary(
            container.image,
            (over, silent),
            waiting_reason,
            (proof, node),
        );
        let summary = open
            .or(decided)
            .unwrap_or_else(|| words::summary(&verdict, container.image, bad, proof, node));
        Diagnosis {
            decided_by: decider::of(&verdict, &target, proof, &found.unread),
            pulls: verdict.cause.is_none(),
            cause: verdict.cause,
            step: verdict.step,
            confidence: verdict.confidence,
            summary: view.with_no_pods(summary, verdict.cause),
            alternatives: verdict.alternatives,
            evidence,
            steps: found.proof.map(|proof| proof.steps).unwrap_or_default(),
            seen: found.sights,
            retry,
            rate_limit,
            fixes,
            unread: found.unread,
            ..Diagnosis::about(target)
        }
    }

    /// Everything that is asked about one container's image.
    async fn gather(
        &self,
        view: &View,
        container: &Container<'_>,
        image: Option<&Reference>,
    ) -> Found {
        let node = container::node_view(view, container);
        // The runtime pulls the image of its sandboxes itself, without the pod's logins.
        let own = |node: &NodeView| node.cause == Cause::SandboxImageUnavailable;
        let facts = image
            .filter(|_| !node.as_ref().is_some_and(own))
            .map(|image| secret_facts(view, image))
            .unwrap_or_default();
        let mut unread: Vec<String> = view.unread.iter().map(Unread::to_string).collect();
        let (mut here, mut looked) = (None, None);
        if let Some(image) = image.filter(|_| container.may_pull()) {
            let (from_here, from_there) = futures::join!(
                self.replay_beside(view, image, &facts, node.as_ref()),
                self.look(view, container.image, image, &facts)
            );
            here = from_here.map_err(|why| unread.push(why)).ok();
            looked = from_there.and_then(|proof| proof.map_err(|why| unread.push(why)).ok());
        }
        let (mut proof, sights, differ) = views::together(looked, here);
        if let Some(proof) = &mut proof {
            proof.for_nodes_platform = view.node.platform.is_some();
        }
        let blind = further::let_in(node.as_ref(), proof.as_ref());
        let seen = (&facts[..], proof.as_ref().filter(|_| !blind), node.as_ref());
        let mut spare = None;
        if let Some(image) = image {
            spare = self.spare_secret(view, image, seen, &mut unread).await;
        }
        let elsewhere = self.elsewhere(view, (image, container.image), seen).await;
        let dated = (proof.as_ref(), node.as_ref());
        let clock = self.clock(view, dated, &mut unread).await;
        Found {
            ends: image
                .map(|image| ends(view, image, &facts))
                .unwrap_or_default(),
            clock,
            node,
            facts,
            proof,
            sights,
            differ,
            spare,
            elsewhere,
            unread,
        }
    }

    /// The pull replayed; once more where it stopped on the way in a manner that may pass, and the node got further than that.
    async fn replay_beside(
        &self,
        view: &View,
        image: &Reference,
        facts: &[SecretFact],
        node: Option<&NodeView>,
    ) -> Result<Proof, NotAsked> {
        let pull = pull(view, image, facts, How::AsAsked);
        let asked = self.prober.replay(pull.clone()).await?;
        let mut proof = self.proof(view, &pull, &asked);
        if further::stopped_before(node, &proof) {
            let again = self.prober.once_more(pull.clone()).await?;
            proof = self.proof(view, &pull, &again);
        }
        Ok(proof)
    }

    /// A guess, replayed.
    async fn replay(
        &self,
        view: &View,
        image: &Reference,
        facts: &[SecretFact],
    ) -> Result<Proof, NotAsked> {
        let pull = pull(view, image, facts, How::Shallow);
        let asked = self.prober.replay(pull.clone()).await?;
        Ok(self.proof(view, &pull, &asked))
    }

    fn proof(&self, view: &View, pull: &Pull, asked: &Asked) -> Proof {
        let on_node = self.boot_id.is_some() && self.boot_id == view.node.boot_id;
        let from = (self.seen_from.as_str(), on_node);
        proof::of_asked(asked, &pull.candidates, from)
    }

    /// The pull as it goes on the node that is looked from; `None` where nobody asked for that.
    async fn look(
        &self,
        view: &View,
        written: &str,
        image: &Reference,
        facts: &[SecretFact],
    ) -> Option<Result<Proof, String>> {
        let eye = self.eye.as_ref()?;
        let bound = view.node_name();
        if bound != Some(eye.node()) {
            let where_ =
                bound.map_or_else(|| "no node".to_owned(), |bound| format!("node {bound}"));
            return Some(Err(format!(
                "pod {}/{} is on {where_}: the view from node {} says nothing of it",
                view.namespace,
                view.name,
                eye.node()
            )));
        }
        let there = |fact: &&SecretFact| matches!(fact.state, SecretState::Matches(_));
        let candidates = candidates(&view.namespace, image, facts);
        let platform = view.node.platform.clone().unwrap_or_else(Platform::host);
        let wanted = Wanted {
            namespace: &view.namespace,
            pod: (view.kind == "Pod").then_some(view.name.as_str()),
            image: written,
            secrets: facts
                .iter()
                .filter(there)
                .map(|fact| fact.name.clone())
                .collect(),
            platform: &platform,
            credentials: candidates.into_iter().map(|one| one.credential).collect(),
        };
        Some(views::look(eye, wanted).await)
    }

    /// The secrets that the pod's service account names by now, where a login is what is wrong.
    async fn account(&self, view: &View, cause: Option<Cause>) -> Option<Arc<[String]>> {
        if !fixes::is_of_logins(cause?) {
            return None;
        }
        let account = view.service_account();
        let named = self.world.account_secrets(&view.namespace, account).await;
        named.ok()
    }

    /// A name for a new secret that none of the namespace has, where one may be made.
    async fn free_name(
        &self,
        view: &View,
        image: Option<&Reference>,
        cause: Option<Cause>,
    ) -> Option<String> {
        if !fixes::makes_a_secret(cause?) {
            return None;
        }
        for name in fixes::names(image?) {
            let found = self.world.secret(&view.namespace, &name).await;
            if found.ok()?.is_none() {
                return Some(name);
            }
        }
        None
    }

    /// The node's clock, where a cause of dates is in question.
    async fn clock(
        &self,
        view: &View,
        (proof, node): (Option<&Proof>, Option<&NodeView>),
        unread: &mut Vec<String>,
    ) -> Option<NodeClock> {
        let failed = proof.and_then(|proof| proof.failure.as_ref());
        let causes = failed.map(|failed| failed.cause).into_iter();
        let mut causes = causes.chain(node.map(|node| node.cause));
        let name = view
            .node_name()
            .filter(|_| causes.any(decide::is_of_dates))?;
        let clock = self.world.clock(name, view.node.ready).await;
        clock
            .map_err(|why| {
                let unknown = Unread {
                    what: format!("the lease of node {name}"),
                    why,
                    cost: "whether its clock is right stays unknown".to_owned(),
                };
                unread.push(unknown.to_string());
            })
            .ok()
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
        // An image that was meant for a registry of one's own asks for the name of a public one.
        let may_be = elsewhere::may_be(cause) || cause == Cause::DnsFailed;
        // Where the replay goes through, it is where it was looked for.
        if !may_be || (proof.is_some() && failed.is_none()) {
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
    ) -> Option<String> {
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
            matches!(state, SecretState::Matches(_)).then_some(SecretFact {
                name,
                state,
                others: Vec::new(),
                extensible: false,
            })
        });
        for fact in matching.take(MAX_SPARE) {
            let replayed = self.replay(view, image, std::slice::from_ref(&fact)).await;
            if replayed.is_ok_and(|proof| proof.failure.is_none()) {
                return Some(fact.name);
            }
        }
        None
    }
}

/// What is known of one container's image.
struct Found {
    node: Option<NodeView>,
    /// Where dates decide.
    clock: Option<NodeClock>,
    facts: Vec<SecretFact>,
    ends: Ends,
    proof: Option<Proof>,
    sights: Vec<Sight>,
    differ: Option<Evidence>,
    /// A secret that the pod does not name and that would do.
    spare: Option<String>,
    elsewhere: Option<Elsewhere>,
    unread: Vec<String>,
}

/// Everything that an answer rests on.
fn evidence(
    view: &View,
    container: &Container<'_>,
    found: &Found,
    (image, bad): (Option<&Reference>, Option<&ReferenceError>),
    cause: Option<Cause>,
) -> Vec<Evidence> {
    let proof = found.proof.as_ref();
    let spare = found.spare.as_deref();
    let mut evidence = view.evidence(container, found.node.as_ref());
    evidence.splice(0..0, bad.map(words::reference_evidence));
    evidence.extend(words::secret_evidence(&found.facts, spare));
    evidence.extend(found.elsewhere.as_ref().map(words::elsewhere_evidence));
    evidence.extend(proof.map(words::proof_evidence));
    evidence.extend(words::let_in_evidence(found.node.as_ref(), proof));
    evidence.extend(proof.and_then(Proof::clock_evidence));
    let clock = found.clock.as_ref();
    evidence.extend(clock.map(|clock| clock_evidence(view, clock)));
    evidence.extend(found.differ.clone());
    if let Some(image) = image {
        evidence.extend(view.witnesses(image, cause));
    }
    evidence.extend(found.ends.evidence());
    evidence.extend(image.and_then(|image| retired::evidence(image, cause)));
    evidence
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
    let changeable = matches!(container.role, Role::Init | Role::Main);
    Target {
        kind: view.kind.clone(),
        namespace: Some(view.namespace.clone()),
        name: view.name.clone(),
        // The commands that change an image reach neither of the others.
        container: changeable.then(|| container.name.to_owned()),
        init: container.role == Role::Init,
        image: container.image.to_owned(),
        node: view.node_name().map(str::to_owned),
        owner: view.owner.clone(),
    }
}

fn clock_evidence(view: &View, clock: &NodeClock) -> Evidence {
    Evidence {
        fact: clock.words(view.node_name().unwrap_or_default()),
        seen_from: "the cluster's API".to_owned(),
        seen_by: "kubelet".to_owned(),
    }
}

fn secret_facts(view: &View, image: &Reference) -> Vec<SecretFact> {
    let judged = view.secrets.iter().map(|(name, found)| SecretFact {
        name: name.clone(),
        extensible: matches!(found, Ok(Some(secret)) if secrets::is_extensible(secret)),
        others: match found {
            Ok(Some(secret)) => secrets::others(image, secret),
            _ => Vec::new(),
        },
        state: match found {
            Ok(Some(secret)) => secrets::judge(image, secret),
            Ok(None) => SecretState::Missing,
            Err(why) => SecretState::Unreadable(why.clone()),
        },
    });
    judged.collect()
}

/// When the logins of a pod's secrets end.
fn ends(view: &View, image: &Reference, facts: &[SecretFact]) -> Ends {
    let candidates = candidates(&view.namespace, image, facts);
    Ends::of(&candidates, image.registry(), Timestamp::now(), |name| {
        let (_, found) = view.secrets.iter().find(|(known, _)| known == name)?;
        let secret = found.as_ref().ok()?.as_ref()?;
        secrets::written(secret)
    })
}

/// The pull as the kubelet would make it.
fn pull(view: &View, image: &Reference, facts: &[SecretFact], how: How) -> Pull {
    Pull {
        image: image.clone(),
        platform: view.node.platform.clone().unwrap_or_else(Platform::host),
        candidates: candidates(&view.namespace, image, facts),
        how,
    }
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
