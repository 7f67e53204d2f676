//! What is seen, in words for a person.

use towline_cause::Cause;

use crate::decide::further;
use crate::decide::{NodeView, Verdict};
use crate::proof::Proof;
use crate::secrets::{SecretFact, SecretState};
use crate::{Elsewhere, Evidence, Fix, Retry, Target};
use towline_cause::Fixer;

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
    if cause == Cause::AdmissionDenied
        && let Some(node) = node.filter(|node| node.cause == cause)
    {
        return node.text.clone();
    }
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
        (None, Some(node)) if node.cause == cause && node.typed => without_suffix(&node.text),
        _ => cause.summary().to_owned(),
    }
}

/// Where what the node said is over, or it says no longer why it does not pull.
pub(super) fn open_summary(
    image: &str,
    (over, silent): (bool, bool),
    waiting: Option<&str>,
    (proof, node): (Option<&Proof>, Option<&NodeView>),
) -> Option<String> {
    let from = proof.map_or("this machine", |proof| proof.seen.0.as_str());
    if over {
        return Some(format!(
            "{image} was not to be had when the node asked; it is by now: from {from} it pulls"
        ));
    }
    let why = match node {
        Some(_) => "in words that name no known cause",
        None => "and no longer why",
    };
    let waiting = waiting.unwrap_or("waiting");
    silent.then(|| {
        format!(
            "the node says that it does not pull {image} ({waiting}), {why}; from {from} it pulls"
        )
    })
}

/// What to do where nothing is to be changed before another attempt: to wait for that, or to have it now.
pub(super) fn next_attempt(target: &Target, retry: Option<&Retry>) -> Fix {
    let when = match retry.and_then(|retry| retry.next.as_deref()) {
        Some(next) => format!("it comes at {next}"),
        None => "the kubelet makes one at least every 5 min".to_owned(),
    };
    // A pod that nothing makes anew would be gone.
    let owned = target.owner.is_some() && target.kind == "Pod";
    let namespace = target.namespace.as_deref().unwrap_or("default");
    let name = &target.name;
    Fix {
        description: if owned {
            format!("Wait for the next attempt ({when}); a pod made anew asks at once")
        } else {
            format!("Wait for the next attempt ({when})")
        },
        commands: owned
            .then(|| format!("kubectl -n {namespace} delete pod {name}"))
            .into_iter()
            .collect(),
        who: vec![Fixer::AppDeveloper],
        certain: false,
        actions: Vec::new(),
        files: Vec::new(),
        confirm: Some(format!("kubectl -n {namespace} get pod {name} --watch")),
    }
}

/// What to do where the registry refuses and a secret that the pod names may not be read: to have somebody look at it, not to make one.
pub(super) fn look_at_secrets(target: &Target, facts: &[SecretFact]) -> Fix {
    let namespace = target.namespace.as_deref().unwrap_or("default");
    let unread = facts
        .iter()
        .filter(|fact| matches!(fact.state, SecretState::Unreadable(_)));
    Fix {
        description: "Have the pull secret that the pod names looked at by somebody who may read it: whether it is there, and holds a login for this registry".to_owned(),
        commands: unread
            .map(|fact| format!("kubectl -n {namespace} get secret {}", fact.name))
            .collect(),
        who: vec![Fixer::AppDeveloper, Fixer::ClusterAdmin],
        certain: false,
        actions: Vec::new(),
        files: Vec::new(),
        confirm: None,
    }
}

/// That the replay was refused where the node was let in, and what that means.
pub(super) fn let_in_evidence(node: Option<&NodeView>, proof: Option<&Proof>) -> Option<Evidence> {
    let proof = proof.filter(|proof| further::let_in(node, Some(proof)))?;
    let (seen_from, seen_by) = proof.seen.clone();
    Some(Evidence {
        fact: format!(
            "the node was let in where {seen_from} is refused: it has a login of its own, and what comes behind the login could not be seen from {seen_from}"
        ),
        seen_from,
        seen_by,
    })
}

/// The words of a message without our runtime's suffix, which repeats what the diagnosis says in fields of its own.
pub(super) fn without_suffix(text: &str) -> String {
    match text.rfind(" [towline: ") {
        Some(at) if towline_cause::suffix::parse(text).is_some() => text[..at].to_owned(),
        _ => text.to_owned(),
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
