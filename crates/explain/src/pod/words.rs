//! What is seen, in words for a person.

use towline_cause::Cause;

use crate::decide::{NodeView, Verdict};
use crate::proof::Proof;
use crate::secrets::{SecretFact, SecretState};
use crate::{Elsewhere, Evidence};

/// Where a pull secret decides, the sentence is about that secret and not about the registry that refused.
pub(super) fn secret_summary(
    verdict: &Verdict,
    facts: &[SecretFact],
    spare: Option<&str>,
) -> Option<String> {
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

pub(super) fn spare_line(name: &str) -> String {
    format!("the secret {name:?}, which the pod does not name, is accepted by the registry")
}

/// One sentence: what the replay saw, else what the node said, else what the cause means.
pub(super) fn summary(
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
    let failed = proof.and_then(|proof| proof.failure.as_ref());
    if let (Cause::SandboxImageUnavailable, Some(failed)) = (cause, failed) {
        let detail = &failed.detail;
        return format!(
            "the image of the pod's sandbox, which the runtime brings itself, cannot be pulled: {detail}"
        );
    }
    let seen = failed.filter(|failed| failed.cause == cause);
    match (seen, node) {
        (Some(failed), _) => failed.detail.clone(),
        (None, Some(node)) if node.cause == cause && node.typed => node.text.clone(),
        _ => cause.summary().to_owned(),
    }
}

/// Where the image was found in another place, the sentence says where.
pub(super) fn elsewhere_summary(
    verdict: &Verdict,
    elsewhere: Option<&Elsewhere>,
) -> Option<String> {
    let found = elsewhere.filter(|found| verdict.cause == Some(found.cause))?;
    Some(match found.cause {
        Cause::ImageMoved => format!(
            "the image was moved by its publisher: it is there as {}",
            found.image
        ),
        _ => format!(
            "no registry is written, so it was looked up on Docker Hub; it is there as {}",
            found.image
        ),
    })
}

pub(super) fn elsewhere_evidence(found: &Elsewhere) -> Evidence {
    Evidence {
        fact: format!("a replayed pull of {} goes through", found.image),
        seen_from: "this machine".into(),
        seen_by: "towline probe".into(),
    }
}

pub(super) fn reference_evidence(error: &towline_oci::ReferenceError) -> Evidence {
    Evidence {
        fact: error.to_string(),
        seen_from: "the pod's spec".into(),
        seen_by: "towline".into(),
    }
}

pub(super) fn secret_evidence(facts: &[SecretFact], spare: Option<&str>) -> Vec<Evidence> {
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

pub(super) fn secret_line(fact: &SecretFact) -> String {
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

pub(super) fn proof_evidence(proof: &Proof) -> Evidence {
    let fact = match &proof.failure {
        Some(failed) => format!(
            "the replayed pull stops at {}: {}",
            failed.step, failed.detail
        ),
        None => "the replayed pull goes through with the pod's credentials".to_owned(),
    };
    let (seen_from, seen_by) = proof.seen.clone();
    Evidence {
        fact,
        seen_from,
        seen_by,
    }
}
