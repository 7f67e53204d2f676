//! What a registry's refusal of a login means: only the pod and its secrets decide.

use towline_cause::{Cause, Confidence, Step};

use super::{Facts, Verdict};
use crate::secrets::SecretState;

/// One secret that the kubelet cannot read stops every pull of the pod, whatever the registry would say.
pub(super) fn poisoned(facts: &Facts<'_>) -> Option<Verdict> {
    let stopped = facts
        .node
        .is_some_and(|node| node.cause == Cause::PullSecretMalformed);
    let malformed = facts
        .secrets
        .iter()
        .any(|secret| matches!(secret.state, SecretState::Malformed(_)));
    (stopped && malformed).then(|| Verdict::proven(Cause::PullSecretMalformed, Step::Credentials))
}

/// Causes that a registry's refusal leaves open, and that only pod and secrets decide.
pub(super) fn login(facts: &Facts<'_>) -> Option<Verdict> {
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
pub(super) fn expired(facts: &Facts<'_>) -> Option<Verdict> {
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
