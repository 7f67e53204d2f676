//! A pod explained: what the cluster says of it, put together with the replayed pull.

mod cluster;
mod container;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Client;
use towline_cause::Cause;
use towline_keyring::{Candidate, Keyring};
use towline_oci::{Platform, Reference};

use crate::decide::{self, Facts, NodeView, Verdict};
use crate::fixes::{self, Ground};
use crate::proof::{self, Proof};
use crate::secrets::{self, SecretFact, SecretState};
use crate::{API_VERSION, Diagnosis, Evidence, KIND, Target, Unread};
use cluster::Cluster;

/// The most secrets that a pod does not name and that are tried all the same: each costs the registry a replay.
const MAX_SPARE: usize = 5;

/// What an explanation works with.
#[derive(Clone)]
pub struct Context {
    /// The cluster's API.
    pub kube: Client,
    /// The client that replays pulls.
    pub registry: towline_distribution::Client,
    /// Where this program runs, for the evidence: `this machine`, or a node's name.
    pub seen_from: String,
    /// Boot id of this machine: a node with the same one is this machine.
    pub boot_id: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("seen_from", &self.seen_from)
            .finish_non_exhaustive()
    }
}

/// Why a pod cannot be explained at all.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such pod.
    #[error("there is no pod {name:?} in namespace {namespace:?}")]
    NoPod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// The API did not answer.
    #[error("cannot read {what}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Explains every container of a pod whose image is not there, or says that all images are.
pub async fn explain(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Vec<Diagnosis>, ExplainError> {
    let cluster = Cluster::read(&context.kube, namespace, name).await?;
    let mut diagnoses = Vec::new();
    for container in container::all(&cluster.pod) {
        if !container.image_is_there() {
            diagnoses.push(one(context, &cluster, &container).await);
        }
    }
    if diagnoses.is_empty() {
        diagnoses.extend(
            container::all(&cluster.pod)
                .first()
                .map(|container| running(&cluster, container)),
        );
    }
    Ok(diagnoses)
}

async fn one(
    context: &Context,
    cluster: &Cluster,
    container: &container::Container<'_>,
) -> Diagnosis {
    let target = target(cluster, container);
    let parsed = Reference::parse(container.image);
    let image = parsed.as_ref().ok();
    let node = container::node_view(cluster, container);
    let facts = image
        .map(|image| secret_facts(cluster, image))
        .unwrap_or_default();
    let proof = match image {
        Some(image) if container.may_pull() => Some(replay(context, cluster, image, &facts).await),
        _ => None,
    };
    let spare = match image {
        Some(image) => {
            spare_secret(
                context,
                cluster,
                image,
                &facts,
                proof.as_ref(),
                node.as_ref(),
            )
            .await
        }
        None => None,
    };
    let verdict = decide::decide(&Facts {
        bad_reference: parsed.as_ref().err(),
        waiting_reason: container.waiting_reason(),
        node: node.as_ref(),
        secrets: &facts,
        spare_secret: spare.as_deref(),
        proof: proof.as_ref(),
    });
    let ground = Ground {
        target: &target,
        image,
        secrets: &facts,
        spare_secret: spare.as_deref(),
        service_account: cluster.service_account(),
        proof: proof.as_ref(),
    };
    let fixes = fixes::fixes(&ground, &verdict);
    let mut evidence = cluster.evidence(container, node.as_ref());
    evidence.splice(0..0, parsed.as_ref().err().map(reference_evidence));
    evidence.extend(secret_evidence(&facts, spare.as_deref()));
    evidence.extend(proof_evidence(context, proof.as_ref()));
    Diagnosis {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        pulls: verdict.cause.is_none(),
        cause: verdict.cause,
        step: verdict.step,
        confidence: verdict.confidence,
        summary: secret_summary(&verdict, &facts, spare.as_deref()).unwrap_or_else(|| {
            summary(
                &verdict,
                container.image,
                parsed.as_ref().err(),
                proof.as_ref(),
                node.as_ref(),
            )
        }),
        alternatives: verdict.alternatives,
        evidence,
        steps: proof.map(|proof| proof.steps).unwrap_or_default(),
        retry: container::retry(cluster, container, verdict.cause),
        fixes,
        unread: cluster.unread.iter().map(Unread::to_string).collect(),
        target,
    }
}

fn running(cluster: &Cluster, container: &container::Container<'_>) -> Diagnosis {
    let fact = format!(
        "every image of the pod is on node {}",
        cluster.node_name().unwrap_or("-")
    );
    Diagnosis {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        target: Target {
            container: None,
            ..target(cluster, container)
        },
        pulls: true,
        cause: None,
        step: None,
        confidence: towline_cause::Confidence::Proven,
        summary: fact.clone(),
        alternatives: Vec::new(),
        evidence: vec![Evidence {
            fact,
            seen_from: "the cluster's API".into(),
            seen_by: "kubelet".into(),
        }],
        steps: Vec::new(),
        retry: None,
        fixes: Vec::new(),
        unread: Vec::new(),
    }
}

fn target(cluster: &Cluster, container: &container::Container<'_>) -> Target {
    Target {
        kind: "Pod".to_owned(),
        namespace: Some(cluster.namespace.clone()),
        name: cluster.name.clone(),
        container: Some(container.name.to_owned()),
        image: container.image.to_owned(),
        node: cluster.node_name().map(str::to_owned),
        owner: cluster.owner.clone(),
    }
}

/// Where a pull secret decides, the sentence is about that secret and not about the registry that refused.
fn secret_summary(verdict: &Verdict, facts: &[SecretFact], spare: Option<&str>) -> Option<String> {
    let guilty = |wanted: fn(&SecretState) -> bool| {
        facts
            .iter()
            .find(|fact| wanted(&fact.state))
            .map(secret_line)
    };
    match verdict.cause? {
        Cause::PullSecretMissing => guilty(|state| matches!(state, SecretState::Missing)),
        Cause::PullSecretWrongHost => guilty(|state| matches!(state, SecretState::WrongHost(_))),
        Cause::PullSecretMalformed => guilty(|state| matches!(state, SecretState::Malformed(_))),
        Cause::PullSecretNotReferenced => spare.map(spare_line),
        _ => None,
    }
}

fn spare_line(name: &str) -> String {
    format!("the secret {name:?}, which the pod does not name, is accepted by the registry")
}

/// One sentence: what the replay saw, else what the node said, else what the cause means.
fn summary(
    verdict: &Verdict,
    image: &str,
    bad: Option<&towline_oci::ReferenceError>,
    proof: Option<&Proof>,
    node: Option<&NodeView>,
) -> String {
    let Some(cause) = verdict.cause else {
        return format!("{image} can be pulled from here with the pod's credentials");
    };
    if let Some(error) = bad {
        return error.to_string();
    }
    let seen = proof
        .and_then(|proof| proof.failure.as_ref())
        .filter(|failed| failed.cause == cause);
    match (seen, node) {
        (Some(failed), _) => failed.detail.clone(),
        (None, Some(node)) if node.cause == cause && node.typed => node.text.clone(),
        _ => cause.summary().to_owned(),
    }
}

fn secret_facts(cluster: &Cluster, image: &Reference) -> Vec<SecretFact> {
    let judged = cluster.secrets.iter().map(|(name, found)| SecretFact {
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

async fn replay(
    context: &Context,
    cluster: &Cluster,
    image: &Reference,
    facts: &[SecretFact],
) -> Proof {
    let candidates = candidates(&cluster.namespace, image, facts);
    let platform = cluster.platform.clone().unwrap_or_else(Platform::host);
    let on_node = context.boot_id.is_some() && context.boot_id == cluster.boot_id;
    proof::replay(&context.registry, image, platform, candidates, on_node).await
}

/// Looks for a secret of the namespace that the pod does not name and that the registry accepts.
async fn spare_secret(
    context: &Context,
    cluster: &Cluster,
    image: &Reference,
    facts: &[SecretFact],
    proof: Option<&Proof>,
    node: Option<&NodeView>,
) -> Option<String> {
    let refused = |cause| cause == Cause::NoCredentials;
    let failed = proof
        .and_then(|proof| proof.failure.as_ref())
        .map(|failed| failed.cause);
    if !facts.is_empty()
        || !failed
            .or_else(|| node.map(|node| node.cause))
            .is_some_and(refused)
    {
        return None;
    }
    let matching = cluster
        .pull_secrets(&context.kube)
        .await
        .into_iter()
        .filter_map(|(name, secret)| {
            let state = secrets::judge(image, &secret);
            matches!(state, SecretState::Matches(_)).then_some(SecretFact { name, state })
        });
    for fact in matching.take(MAX_SPARE) {
        if replay(context, cluster, image, std::slice::from_ref(&fact))
            .await
            .failure
            .is_none()
        {
            return Some(fact.name);
        }
    }
    None
}

fn reference_evidence(error: &towline_oci::ReferenceError) -> Evidence {
    Evidence {
        fact: error.to_string(),
        seen_from: "the pod's spec".into(),
        seen_by: "towline".into(),
    }
}

fn secret_evidence(facts: &[SecretFact], spare: Option<&str>) -> Vec<Evidence> {
    let mut lines: Vec<String> = facts.iter().map(secret_line).collect();
    lines.extend(spare.map(spare_line));
    lines
        .into_iter()
        .map(|fact| Evidence {
            fact,
            seen_from: "the cluster's API".into(),
            seen_by: "towline".into(),
        })
        .collect()
}

fn secret_line(fact: &SecretFact) -> String {
    let name = &fact.name;
    match &fact.state {
        SecretState::Missing => format!("the pod names the secret {name:?}, which does not exist"),
        SecretState::Unreadable(why) => format!("the secret {name:?} could not be read: {why}"),
        SecretState::Malformed(faults) => format!(
            "the secret {name:?} gives the kubelet no login: {}",
            faults.join("; ")
        ),
        SecretState::WrongHost(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, why)| format!("{key:?}: {why}"))
                .collect();
            format!(
                "the secret {name:?} holds no login for this image: {}",
                entries.join("; ")
            )
        }
        SecretState::Matches(keys) => format!(
            "the secret {name:?} holds a login for {}",
            keys.hosts().join(", ")
        ),
    }
}

fn proof_evidence(context: &Context, proof: Option<&Proof>) -> Option<Evidence> {
    let proof = proof?;
    let fact = match &proof.failure {
        Some(failed) => format!(
            "the replayed pull stops at {}: {}",
            failed.step, failed.detail
        ),
        None => "the replayed pull goes through with the pod's credentials".to_owned(),
    };
    Some(Evidence {
        fact,
        seen_from: context.seen_from.clone(),
        seen_by: "towline probe".into(),
    })
}

/// The status of a container by name, among init and main containers.
fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
}
