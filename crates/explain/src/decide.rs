//! The decision: one cause out of what was seen. A plain function over plain facts.

use towline_cause::{Cause, Confidence, Step};
use towline_oci::ReferenceError;

use crate::elsewhere::{self, Elsewhere};
use crate::proof::Proof;
use crate::secrets::{SecretFact, SecretState};

/// What the node says of its last attempt.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The cause it names, or that its words allow.
    pub cause: Cause,
    /// The step, where it is known.
    pub step: Option<Step>,
    /// How clearly it says so.
    pub confidence: Confidence,
    /// Causes its words leave open.
    pub alternatives: Vec<Cause>,
    /// Whether the runtime named the cause itself, so that nothing was read out of text.
    pub typed: bool,
    /// Its words.
    pub text: String,
}

/// Everything that a decision may rest on.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The image does not parse.
    pub bad_reference: Option<&'a ReferenceError>,
    /// The kubelet's waiting reason, such as `ImagePullBackOff`.
    pub waiting_reason: Option<&'a str>,
    /// What the node says.
    pub node: Option<&'a NodeView>,
    /// The pull secrets that the pod names.
    pub secrets: &'a [SecretFact],
    /// A secret of the namespace that the pod does not name and that the registry accepts.
    pub spare_secret: Option<&'a str>,
    /// Every login that is offered has ended, by its own word.
    pub logins_expired: bool,
    /// The pull as it was replayed.
    pub proof: Option<&'a Proof>,
    /// Where the image is instead.
    pub elsewhere: Option<&'a Elsewhere>,
    /// The node has the image, and the policy has it ask a registry all the same.
    pub on_node_already: bool,
}

/// One cause and how sure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The cause; `None` where the image pulls.
    pub cause: Option<Cause>,
    /// The step.
    pub step: Option<Step>,
    /// How sure.
    pub confidence: Confidence,
    /// Causes left open.
    pub alternatives: Vec<Cause>,
}

impl Verdict {
    fn proven(cause: Cause, step: Step) -> Self {
        Self {
            cause: Some(cause),
            step: Some(step),
            confidence: Confidence::Proven,
            alternatives: Vec::new(),
        }
    }
}

/// Decides. Facts that are the same from everywhere (a reference, a secret, a manifest) come before what only one side saw;
/// where node and replay disagree the node is believed and the replay's answer stays open.
///
/// Nothing is called proven while other causes stay open.
pub fn decide(facts: &Facts<'_>) -> Verdict {
    let mut verdict = weigh(facts);
    if !verdict.alternatives.is_empty() {
        verdict.confidence = verdict.confidence.min(Confidence::Likely);
    }
    verdict
}

fn weigh(facts: &Facts<'_>) -> Verdict {
    if let Some(verdict) = no_sandbox(facts) {
        return verdict;
    }
    if facts.bad_reference.is_some() {
        return Verdict::proven(Cause::InvalidReference, Step::Reference);
    }
    if facts.waiting_reason == Some("ErrImageNeverPull") {
        return Verdict::proven(Cause::NeverPull, Step::Policy);
    }
    if let Some(verdict) = poisoned(facts) {
        return verdict;
    }
    if let Some(found) = facts.elsewhere {
        return Verdict::proven(found.cause, Step::Resolve);
    }
    let failed = facts
        .proof
        .and_then(|proof| proof.failure.as_ref())
        .map(|failed| failed.cause)
        .or_else(|| facts.node.map(|node| node.cause));
    if facts.on_node_already && failed.is_some_and(elsewhere::may_be) {
        return Verdict::proven(Cause::AlwaysPullsLocalImage, Step::Policy);
    }
    if let Some(verdict) = login(facts) {
        return verdict;
    }
    if let Some(verdict) = expired(facts) {
        return verdict;
    }
    match (facts.node, facts.proof) {
        (Some(node), Some(proof)) => both(node, proof),
        (Some(node), None) => of_node(node),
        (None, Some(proof)) => of_proof(proof),
        (None, None) => unknown(),
    }
}

fn unknown() -> Verdict {
    Verdict {
        cause: Some(Cause::Unknown),
        step: None,
        confidence: Confidence::Unknown,
        alternatives: Vec::new(),
    }
}

/// One secret that the kubelet cannot read stops every pull of the pod, whatever the registry would say.
fn poisoned(facts: &Facts<'_>) -> Option<Verdict> {
    let stopped = facts
        .node
        .is_some_and(|node| node.cause == Cause::PullSecretMalformed);
    let malformed = facts
        .secrets
        .iter()
        .any(|secret| matches!(secret.state, SecretState::Malformed(_)));
    (stopped && malformed).then(|| Verdict::proven(Cause::PullSecretMalformed, Step::Credentials))
}

/// No container has its turn before the pod has a sandbox; the replay is of the sandbox's image then.
fn no_sandbox(facts: &Facts<'_>) -> Option<Verdict> {
    let node = facts.node?;
    let cause = Cause::SandboxImageUnavailable;
    let replayed = facts.proof.and_then(|proof| proof.failure.as_ref());
    (node.cause == cause).then(|| Verdict {
        confidence: match replayed {
            Some(_) => Confidence::Proven,
            None => node.confidence,
        },
        ..Verdict::proven(cause, Step::Sandbox)
    })
}

/// Causes that a registry's refusal leaves open, and that only pod and secrets decide.
fn login(facts: &Facts<'_>) -> Option<Verdict> {
    let refusal = refusal(facts)?;
    let offered = facts
        .secrets
        .iter()
        .any(|secret| matches!(secret.state, SecretState::Matches(_)));
    if offered {
        return None;
    }
    let has =
        |wanted: fn(&SecretState) -> bool| facts.secrets.iter().any(|secret| wanted(&secret.state));
    let cause = if has(|state| matches!(state, SecretState::Malformed(_))) {
        Cause::PullSecretMalformed
    } else if has(|state| matches!(state, SecretState::WrongHost(_))) {
        Cause::PullSecretWrongHost
    } else if has(|state| matches!(state, SecretState::Missing)) {
        Cause::PullSecretMissing
    } else if has(|state| matches!(state, SecretState::Unreadable(_))) {
        return None;
    } else if facts.spare_secret.is_some() {
        Cause::PullSecretNotReferenced
    } else {
        Cause::NoCredentials
    };
    let step = if cause == Cause::NoCredentials {
        Step::Authenticate
    } else {
        Step::Credentials
    };
    let confidence = match refusal {
        Refusal::Replayed => Confidence::Proven,
        Refusal::Told(confidence) => confidence,
    };
    let alternatives = if cause == Cause::NoCredentials {
        open(facts, cause)
    } else {
        Vec::new()
    };
    Some(Verdict {
        cause: Some(cause),
        step: Some(step),
        confidence,
        alternatives,
    })
}

/// A login that is refused and has ended was right once: that it ended is why.
fn expired(facts: &Facts<'_>) -> Option<Verdict> {
    let refused = |cause: Cause| {
        matches!(
            cause,
            Cause::WrongCredentials | Cause::ExpiredCredentials | Cause::NoCredentials
        )
    };
    if !facts.logins_expired {
        return None;
    }
    if let Some(failed) = facts.proof.and_then(|proof| proof.failure.as_ref()) {
        let cause = Cause::ExpiredCredentials;
        return refused(failed.cause).then(|| Verdict::proven(cause, Step::Authenticate));
    }
    let node = facts.node.filter(|node| refused(node.cause))?;
    Some(Verdict {
        confidence: node.confidence.min(Confidence::Stated),
        ..Verdict::proven(Cause::ExpiredCredentials, Step::Authenticate)
    })
}

enum Refusal {
    /// The replay was refused too.
    Replayed,
    /// Only the node says so.
    Told(Confidence),
}

/// Whether the registry refuses whoever comes without a login.
fn refusal(facts: &Facts<'_>) -> Option<Refusal> {
    let wants_login = |cause: Cause| {
        matches!(
            cause,
            Cause::NoCredentials | Cause::PullSecretMissing | Cause::PullSecretWrongHost
        )
    };
    if let Some(proof) = facts.proof {
        let failed = proof.failure.as_ref()?;
        return wants_login(failed.cause).then_some(Refusal::Replayed);
    }
    let node = facts.node.filter(|node| wants_login(node.cause))?;
    Some(Refusal::Told(node.confidence.min(Confidence::Stated)))
}

fn open(facts: &Facts<'_>, cause: Cause) -> Vec<Cause> {
    let mut causes: Vec<Cause> = facts
        .proof
        .iter()
        .flat_map(|proof| proof.failure.iter())
        .flat_map(|failed| failed.alternatives.clone())
        .collect();
    causes.retain(|other| *other != cause);
    causes
}

/// Facts that do not depend on where one looks from.
fn same_from_everywhere(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::TagNotFound
            | Cause::DigestNotFound
            | Cause::RepositoryNotFound
            | Cause::PlatformMismatch
            | Cause::ManifestUnsupported
            | Cause::NotAnImage
            | Cause::BlobMissing
            | Cause::WrongCredentials
            | Cause::InsufficientPermission
            | Cause::NoCredentials
    )
}

/// A failure that the replay cannot see: it happens on the node, or at another time.
fn only_the_node_sees(cause: Cause) -> bool {
    cause.group() == towline_cause::Group::Node
        || cause.group() == towline_cause::Group::Transfer
        || matches!(
            cause,
            Cause::RateLimited | Cause::NeverPull | Cause::InvalidReference
        )
}

/// What the node's own parts say about the node: the kernel's answer to a write of theirs, a limit that they keep themselves. Where
/// they name it themselves, and it is not read out of words, there is no closer witness and nothing to replay.
fn of_the_node_itself(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoSpaceLeft
            | Cause::FilesystemReadOnly
            | Cause::DiskError
            | Cause::TooManyOpenFiles
            | Cause::TooManyLayers
            | Cause::PullThrottled
    )
}

/// The replay tries more than a pull does, and so names what a pull only runs into.
fn tried_further(told: Cause, found: Cause) -> bool {
    found == Cause::PathMtu && matches!(told, Cause::TlsHandshakeFailed | Cause::ConnectionTimeout)
}

fn both(node: &NodeView, proof: &Proof) -> Verdict {
    let Some(failed) = &proof.failure else {
        return node_alone(node, proof);
    };
    if node.cause == Cause::Unknown {
        return of_proof(proof);
    }
    let same = node.cause == failed.cause || node.alternatives.contains(&failed.cause);
    if same || tried_further(node.cause, failed.cause) {
        let sure = proof.on_node || node.typed || same_from_everywhere(failed.cause);
        return Verdict {
            cause: Some(failed.cause),
            step: Some(failed.step),
            confidence: if sure {
                Confidence::Proven
            } else {
                Confidence::Stated
            },
            alternatives: failed.alternatives.clone(),
        };
    }
    if same_from_everywhere(failed.cause) && node.confidence < Confidence::Stated {
        return of_proof(proof);
    }
    let mut verdict = of_node(node);
    if !verdict.alternatives.contains(&failed.cause) {
        verdict.alternatives.push(failed.cause);
    }
    verdict
}

/// The replay pulls, the node did not: what only the node sees stands; the rest may be over, or differ from there.
fn node_alone(node: &NodeView, proof: &Proof) -> Verdict {
    let mut verdict = of_node(node);
    if !only_the_node_sees(node.cause) && proof.on_node {
        verdict.confidence = verdict.confidence.min(Confidence::Likely);
    }
    verdict
}

fn of_node(node: &NodeView) -> Verdict {
    if node.cause == Cause::Unknown {
        return Verdict {
            alternatives: node.alternatives.clone(),
            ..unknown()
        };
    }
    Verdict {
        cause: Some(node.cause),
        step: node.step.or_else(|| node.cause.steps().first().copied()),
        confidence: if node.typed && of_the_node_itself(node.cause) {
            Confidence::Proven
        } else {
            node.confidence
        },
        alternatives: node.alternatives.clone(),
    }
}

fn of_proof(proof: &Proof) -> Verdict {
    match &proof.failure {
        None => Verdict {
            cause: None,
            step: None,
            confidence: Confidence::Proven,
            alternatives: Vec::new(),
        },
        Some(failed) => Verdict {
            cause: Some(failed.cause),
            step: Some(failed.step),
            confidence: match failed.cause {
                Cause::Unknown => Confidence::Unknown,
                cause if proof.on_node || same_from_everywhere(cause) => Confidence::Proven,
                _ => Confidence::Likely,
            },
            alternatives: failed.alternatives.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::ProofFailure;

    fn node(cause: Cause, typed: bool) -> NodeView {
        NodeView {
            cause,
            step: None,
            confidence: Confidence::Stated,
            alternatives: vec![],
            typed,
            text: String::new(),
        }
    }

    fn proof(cause: Option<Cause>, on_node: bool) -> Proof {
        Proof {
            failure: cause.map(|cause| ProofFailure {
                cause,
                step: Step::Resolve,
                detail: String::new(),
                alternatives: vec![],
                endpoint: None,
            }),
            on_node,
            ..Proof::default()
        }
    }

    fn secret(state: SecretState) -> Vec<SecretFact> {
        vec![SecretFact {
            name: "regcred".into(),
            state,
        }]
    }

    fn facts<'a>(
        node: Option<&'a NodeView>,
        proof: Option<&'a Proof>,
        secrets: &'a [SecretFact],
    ) -> Facts<'a> {
        Facts {
            bad_reference: None,
            waiting_reason: Some("ErrImagePull"),
            node,
            secrets,
            spare_secret: None,
            logins_expired: false,
            proof,
            elsewhere: None,
            on_node_already: false,
        }
    }

    #[test]
    fn a_refusal_is_decided_by_the_secrets() {
        let (node, proof) = (
            node(Cause::NoCredentials, true),
            proof(Some(Cause::NoCredentials), false),
        );
        for (secrets, spare, want) in [
            (vec![], None, Cause::NoCredentials),
            (vec![], Some("good"), Cause::PullSecretNotReferenced),
            (secret(SecretState::Missing), None, Cause::PullSecretMissing),
            (
                secret(SecretState::WrongHost(vec![])),
                None,
                Cause::PullSecretWrongHost,
            ),
            (
                secret(SecretState::Malformed(vec![])),
                None,
                Cause::PullSecretMalformed,
            ),
        ] {
            let facts = Facts {
                spare_secret: spare,
                ..facts(Some(&node), Some(&proof), &secrets)
            };
            let verdict = decide(&facts);
            assert_eq!(
                (verdict.cause, verdict.confidence),
                (Some(want), Confidence::Proven)
            );
        }
    }

    #[test]
    fn a_refused_login_that_has_ended_is_expired() {
        for (seen, expired, want) in [
            (Cause::WrongCredentials, true, Cause::ExpiredCredentials),
            (Cause::WrongCredentials, false, Cause::WrongCredentials),
            (Cause::TagNotFound, true, Cause::TagNotFound),
        ] {
            let mut proof = proof(Some(seen), false);
            proof.failure.as_mut().unwrap().alternatives = vec![Cause::InsufficientPermission];
            let facts = Facts {
                logins_expired: expired,
                ..facts(None, Some(&proof), &[])
            };
            let verdict = decide(&facts);
            assert_eq!(verdict.cause, Some(want));
            let proven = want == Cause::ExpiredCredentials;
            assert_eq!(verdict.confidence == Confidence::Proven, proven);
        }
    }

    #[test]
    fn node_and_replay_together_prove() {
        for (told, typed, seen, on_node, want, confidence) in [
            (
                Cause::TagNotFound,
                false,
                Some(Cause::TagNotFound),
                false,
                Cause::TagNotFound,
                Confidence::Proven,
            ),
            (
                Cause::DnsNameNotFound,
                false,
                Some(Cause::DnsNameNotFound),
                false,
                Cause::DnsNameNotFound,
                Confidence::Stated,
            ),
            (
                Cause::DnsNameNotFound,
                true,
                Some(Cause::DnsNameNotFound),
                false,
                Cause::DnsNameNotFound,
                Confidence::Proven,
            ),
            (
                Cause::NoSpaceLeft,
                true,
                None,
                true,
                Cause::NoSpaceLeft,
                Confidence::Proven,
            ),
            (
                Cause::TlsHandshakeFailed,
                true,
                Some(Cause::PathMtu),
                true,
                Cause::PathMtu,
                Confidence::Proven,
            ),
            // Words of a runtime that were read are not its own report.
            (
                Cause::NoSpaceLeft,
                false,
                None,
                true,
                Cause::NoSpaceLeft,
                Confidence::Stated,
            ),
            (
                Cause::ConnectionTimeout,
                true,
                None,
                true,
                Cause::ConnectionTimeout,
                Confidence::Likely,
            ),
            (
                Cause::ConnectionTimeout,
                true,
                Some(Cause::TagNotFound),
                false,
                Cause::ConnectionTimeout,
                Confidence::Likely,
            ),
        ] {
            let (node, proof) = (node(told, typed), proof(seen, on_node));
            let verdict = decide(&facts(Some(&node), Some(&proof), &[]));
            assert_eq!(
                (verdict.cause, verdict.confidence),
                (Some(want), confidence),
                "{told} {seen:?}"
            );
        }
    }

    #[test]
    fn what_leaves_others_open_is_not_proven() {
        let mut proof = proof(Some(Cause::NoCredentials), true);
        proof.failure.as_mut().unwrap().alternatives = vec![Cause::RepositoryNotFound];
        let verdict = decide(&facts(None, Some(&proof), &[]));
        assert_eq!(verdict.cause, Some(Cause::NoCredentials));
        assert_eq!(verdict.alternatives, [Cause::RepositoryNotFound]);
        assert_eq!(verdict.confidence, Confidence::Likely);
    }

    #[test]
    fn nothing_known_is_said_so() {
        assert_eq!(decide(&facts(None, None, &[])).cause, Some(Cause::Unknown));
        let proof = |on_node| proof(None, on_node);
        assert_eq!(decide(&facts(None, Some(&proof(false)), &[])).cause, None);
        let node = node(Cause::Unknown, true);
        let verdict = decide(&facts(Some(&node), Some(&proof(true)), &[]));
        assert_eq!(
            (verdict.cause, verdict.confidence),
            (Some(Cause::Unknown), Confidence::Unknown),
            "a cause that nobody knows is not likely"
        );
    }
}
