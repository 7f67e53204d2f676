//! Where the node got further than the replay, where it has fallen silent, and where what it said is over.

use towline_cause::{Cause, Confidence, Step};

use super::{Facts, NodeView, Verdict};
use crate::proof::Proof;
use crate::secrets::{SecretFact, SecretState};

/// What a registry answers to whoever comes without the right login.
fn is_refusal(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoCredentials
            | Cause::WrongCredentials
            | Cause::ExpiredCredentials
            | Cause::InsufficientPermission
            | Cause::PullSecretMissing
            | Cause::PullSecretMalformed
            | Cause::PullSecretWrongHost
            | Cause::PullSecretNotReferenced
    )
}

/// Whether the node was let in where the replay was refused: it has a login of its own (of a provider, of its runtime), and a replay
/// without that login says nothing about what comes behind it.
pub(crate) fn let_in(node: Option<&NodeView>, proof: Option<&Proof>) -> bool {
    let failed = proof.and_then(|proof| proof.failure.as_ref());
    let (Some(node), Some(failed)) = (node, failed) else {
        return false;
    };
    let stopped = node.step.or_else(|| node.cause.steps().first().copied());
    is_refusal(failed.cause)
        && !is_refusal(node.cause)
        && node.cause != Cause::Unknown
        && node.confidence >= Confidence::Likely
        && stopped > Some(Step::Authenticate)
}

/// Whether the replay stopped on the way to the registry, in a manner that may pass, where the node got further: then it was the moment
/// that it stopped for.
pub(crate) fn stopped_before(node: Option<&NodeView>, proof: &Proof) -> bool {
    let (Some(node), Some(failed)) = (node, &proof.failure) else {
        return false;
    };
    let reached = node.step.or_else(|| node.cause.steps().first().copied());
    failed.step <= Step::Tls
        && failed.cause.transient()
        && node.cause != Cause::Unknown
        && node.confidence >= Confidence::Likely
        && reached > Some(failed.step)
}

/// The facts without a replay that says nothing about what stopped the node.
pub(super) fn without_the_blind<'a>(facts: &Facts<'a>) -> Facts<'a> {
    let blind = let_in(facts.node, facts.proof);
    Facts {
        proof: facts.proof.filter(|_| !blind),
        ..*facts
    }
}

/// Whether a refusal may be for a secret that the pod names and that may not be read here.
pub(crate) fn may_be_unread(cause: Option<Cause>, secrets: &[SecretFact]) -> bool {
    let has = |wanted: fn(&SecretState) -> bool| secrets.iter().any(|one| wanted(&one.state));
    cause == Some(Cause::NoCredentials)
        && has(|state| matches!(state, SecretState::Unreadable(_)))
        && !has(|state| matches!(state, SecretState::Matches(_)))
}

/// What a secret that may not be read leaves open of a refusal.
pub(super) fn leave_unread_open(facts: &Facts<'_>, verdict: &mut Verdict) {
    if !may_be_unread(verdict.cause, facts.secrets) {
        return;
    }
    for open in [
        Cause::PullSecretMissing,
        Cause::PullSecretMalformed,
        Cause::PullSecretWrongHost,
        Cause::WrongCredentials,
    ] {
        if !verdict.alternatives.contains(&open) {
            verdict.alternatives.push(open);
        }
    }
}

/// What the refusal of the replay leaves open all the same: the pod's own login, which the node may have offered too, and what may
/// have been the matter for a moment before a login counted.
pub(super) fn leave_open(facts: &Facts<'_>, verdict: &mut Verdict) {
    if !let_in(facts.node, facts.proof) {
        return;
    }
    // A registry that refuses strangers told the node something else: the node was none.
    verdict
        .alternatives
        .retain(|cause| *cause != Cause::NoCredentials);
    let offered = facts
        .secrets
        .iter()
        .any(|secret| matches!(secret.state, SecretState::Matches(_)));
    let on_node = facts.proof.is_some_and(|proof| proof.on_node);
    let passing = facts.node.is_some_and(|node| node.cause.transient());
    let failed = facts.proof.and_then(|proof| proof.failure.as_ref());
    if let Some(failed) = failed.filter(|_| offered || on_node || passing)
        && !verdict.alternatives.contains(&failed.cause)
    {
        verdict.alternatives.push(failed.cause);
    }
}

/// Whether the node says that it does not pull, and no longer why or in words that nobody can read, while the replay goes through:
/// nobody knows.
pub(crate) fn silent(facts: &Facts<'_>) -> bool {
    let pulls = facts.proof.is_some_and(|proof| proof.failure.is_none());
    let unread = facts
        .node
        .is_none_or(|node| node.cause == Cause::Unknown && node.alternatives.is_empty());
    let refused = facts
        .waiting_reason
        .is_some_and(|reason| reason != "ErrImageNeverPull");
    unread && refused && pulls
}

/// Whether what the node said was true of the registry and is not any more: the replay finds what was missing, or is let in with the
/// pod's own logins. A replay for another platform than the node's says nothing of the node's.
pub(crate) fn over(node: Option<&NodeView>, proof: Option<&Proof>) -> bool {
    let (Some(node), Some(proof)) = (node, proof) else {
        return false;
    };
    let missing = match node.cause {
        Cause::TagNotFound
        | Cause::DigestNotFound
        | Cause::RepositoryNotFound
        | Cause::BlobMissing
        | Cause::NoCredentials => true,
        Cause::PlatformMismatch => proof.for_nodes_platform,
        _ => false,
    };
    missing && proof.failure.is_none()
}
