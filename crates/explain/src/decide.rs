//! The decision: one cause out of what was seen. A plain function over plain facts.

mod clocks;
pub(crate) mod further;
mod login;
mod views;

use towline_cause::{Cause, Confidence, Step};
use towline_oci::ReferenceError;

use crate::elsewhere::{self, Elsewhere};
use crate::proof::Proof;
use crate::secrets::SecretFact;
pub(crate) use clocks::Stands;
use login::{expired, login, poisoned};
use views::{both, of_node, of_proof};

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
    /// How the node's clock stands to the API server's, where that bears on the cause and was found out.
    pub node_clock: Option<Stands>,
    /// Another pod got this image from the registry after this one had been made.
    pub served_since: bool,
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
    let mut verdict = weigh(&further::without_the_blind(facts));
    further::leave_open(facts, &mut verdict);
    further::leave_unread_open(facts, &mut verdict);
    if facts.served_since {
        verdict = there(verdict);
    }
    if let Some(stands) = facts.node_clock {
        verdict = clocks::weigh(verdict, stands, facts);
    }
    if further::over(facts.node, facts.proof) {
        verdict.confidence = verdict.confidence.min(Confidence::Likely);
    }
    if !verdict.alternatives.is_empty() {
        verdict.confidence = verdict.confidence.min(Confidence::Likely);
    }
    verdict
}

/// Whether a verdict is about dates: then the node's clock has a say.
pub(crate) fn is_of_dates(cause: Cause) -> bool {
    matches!(cause, Cause::TlsCertificateExpired | Cause::NodeClockSkew)
}

/// What cannot be where the registry has just given the image to another: that it is not there.
fn there(mut verdict: Verdict) -> Verdict {
    let absent = |cause: Cause| {
        matches!(
            cause,
            Cause::RepositoryNotFound
                | Cause::TagNotFound
                | Cause::DigestNotFound
                | Cause::InvalidReference
                | Cause::ImageMoved
        )
    };
    verdict.alternatives.retain(|cause| !absent(*cause));
    let led = verdict.cause.is_some_and(absent) && !verdict.alternatives.is_empty();
    if led {
        let cause = verdict.alternatives.remove(0);
        verdict.cause = Some(cause);
        verdict.step = cause.steps().first().copied();
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
    if let Some(node) = facts
        .node
        .filter(|node| further::over(Some(node), facts.proof))
    {
        return of_node(node);
    }
    if let Some(found) = facts.elsewhere {
        return Verdict::proven(found.cause, Step::Resolve);
    }
    let failed = facts
        .proof
        .and_then(|proof| proof.failure.as_ref())
        .map(|failed| failed.cause)
        .or_else(|| facts.node.map(|node| node.cause));
    // Whoever lost a right on an image that the node has once pulled has not built it there.
    let built_there =
        |cause: Cause| cause != Cause::InsufficientPermission && elsewhere::may_be(cause);
    if facts.on_node_already && failed.is_some_and(built_there) {
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
        (None, Some(_)) if further::silent(facts) => unknown(),
        (None, Some(proof)) => of_proof(proof),
        (None, None) => unknown(),
    }
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

fn unknown() -> Verdict {
    Verdict {
        cause: Some(Cause::Unknown),
        step: None,
        confidence: Confidence::Unknown,
        alternatives: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::ProofFailure;
    use crate::secrets::SecretState;

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
            others: vec![],
            extensible: false,
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
            served_since: false,
            node_clock: None,
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
    fn the_nodes_clock_decides_what_is_of_dates() {
        let said = |text: &str| NodeView {
            text: text.to_owned(),
            ..node(Cause::TlsCertificateExpired, false)
        };
        let ended = said("current time 2026-11-30T12:00:00Z is after 2026-11-01T00:00:00Z");
        let early = said("current time 2026-11-30T12:00:00Z is before 2026-12-01T00:00:00Z");
        let ours =
            said("TLS with r.test port 443: the certificate expired at 2026-11-01T00:00:00Z");
        let unclear = said("certificate has expired or is not yet valid");
        let (skew, expired) = (Cause::NodeClockSkew, Cause::TlsCertificateExpired);
        let (ahead, behind, agrees) = (Stands::Ahead, Stands::Behind, Stands::Agrees);
        let (taken, on_it) = (proof(None, false), proof(None, true));
        let wrong_here = Proof {
            clock: Some("this machine's clock is 3 h ahead".to_owned()),
            ..taken.clone()
        };
        for (node, stands, proof, want, confidence) in [
            (&ended, ahead, Some(&taken), skew, Confidence::Proven),
            (&early, behind, Some(&taken), skew, Confidence::Proven),
            (&ours, ahead, Some(&taken), skew, Confidence::Proven),
            (&ours, behind, None, expired, Confidence::Stated),
            (&ended, ahead, None, skew, Confidence::Likely),
            (&unclear, ahead, Some(&taken), skew, Confidence::Likely),
            // The wrong way round it explains nothing.
            (&ended, behind, None, expired, Confidence::Stated),
            (&early, ahead, None, expired, Confidence::Stated),
            (&ended, agrees, Some(&taken), expired, Confidence::Stated),
        ] {
            let verdict = decide(&Facts {
                node_clock: Some(stands),
                ..facts(Some(node), proof, &[])
            });
            assert_eq!(
                (verdict.cause, verdict.confidence),
                (Some(want), confidence),
                "{node:?} {stands:?} {proof:?}"
            );
            let open = verdict.alternatives == [expired];
            assert_eq!(open, want == skew && confidence != Confidence::Proven);
        }
        // Clocks that are wrong together agree: a node in a container has that of the machine, and so has its API server.
        for proof in [&on_it, &wrong_here] {
            let mut node = ended.clone();
            node.alternatives = vec![skew];
            let verdict = decide(&Facts {
                node_clock: Some(agrees),
                ..facts(Some(&node), Some(proof), &[])
            });
            let all = [verdict.cause.unwrap()].into_iter();
            assert!(all.chain(verdict.alternatives).any(|cause| cause == skew));
        }
        let other = node(Cause::TagNotFound, false);
        let verdict = decide(&Facts {
            node_clock: Some(ahead),
            ..facts(Some(&other), None, &[])
        });
        assert_eq!(verdict.cause, Some(Cause::TagNotFound));
    }

    #[test]
    fn a_replay_for_another_platform_says_nothing_of_the_nodes() {
        let told = node(Cause::PlatformMismatch, false);
        let known = |for_nodes_platform| Proof {
            for_nodes_platform,
            ..proof(None, false)
        };
        assert!(further::over(Some(&told), Some(&known(true))));
        assert!(!further::over(Some(&told), Some(&known(false))));
        let gone = node(Cause::TagNotFound, false);
        assert!(further::over(Some(&gone), Some(&known(false))));
    }

    #[test]
    fn what_the_registry_has_just_given_out_is_there() {
        let mut refused = proof(Some(Cause::NoCredentials), true);
        refused.failure.as_mut().unwrap().alternatives = vec![Cause::RepositoryNotFound];
        let served = |facts| Facts {
            served_since: true,
            ..facts
        };
        let verdict = decide(&served(facts(None, Some(&refused), &[])));
        assert_eq!(verdict.cause, Some(Cause::NoCredentials));
        assert_eq!(verdict.confidence, Confidence::Proven);
        assert!(verdict.alternatives.is_empty());

        let mut told = node(Cause::RepositoryNotFound, false);
        told.alternatives = vec![Cause::NoCredentials];
        let verdict = decide(&served(facts(Some(&told), None, &[])));
        assert_eq!(verdict.cause, Some(Cause::NoCredentials));
        assert_eq!(verdict.confidence, Confidence::Likely);

        // What the replay sees now counts more: it was taken away since.
        let gone = proof(Some(Cause::TagNotFound), true);
        let verdict = decide(&served(facts(None, Some(&gone), &[])));
        assert_eq!(verdict.cause, Some(Cause::TagNotFound));
        assert_eq!(verdict.confidence, Confidence::Proven);
    }

    #[test]
    fn nothing_known_is_said_so() {
        assert_eq!(decide(&facts(None, None, &[])).cause, Some(Cause::Unknown));
        let proof = |on_node| proof(None, on_node);
        let pulled = proof(false);
        let waits = facts(None, Some(&pulled), &[]);
        assert_eq!(decide(&waits).cause, Some(Cause::Unknown), "it waits");
        let begins = Facts {
            waiting_reason: None,
            ..waits
        };
        assert_eq!(decide(&begins).cause, None);
        let node = node(Cause::Unknown, true);
        let verdict = decide(&facts(Some(&node), Some(&proof(true)), &[]));
        assert_eq!(
            (verdict.cause, verdict.confidence),
            (Some(Cause::Unknown), Confidence::Unknown),
            "a cause that nobody knows is not likely"
        );
    }
}
