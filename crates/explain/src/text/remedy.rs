//! What is to be done by what a text could show, and what would decide where it could not.

use towline_cause::Cause;
use towline_oci::Reference;

use super::seen::Pod;
use crate::decide::Verdict;
use crate::decider;
use crate::fixes::{self, Ground};
use crate::secrets::{SecretFact, SecretState};
use crate::{Decider, Fix, Target};

/// The cause's fixes for what could be seen.
pub(super) fn fixes(
    (target, pod, runtime): (&Target, &Pod, Option<&str>),
    image: Option<&Reference>,
    verdict: &Verdict,
    missing: &[String],
) -> Vec<Fix> {
    let Some(cause) = verdict.cause else {
        return Vec::new();
    };
    let facts: Vec<SecretFact> = missing
        .iter()
        .map(|name| SecretFact {
            name: name.clone(),
            state: SecretState::Missing,
            others: Vec::new(),
            extensible: false,
        })
        .collect();
    let mut shown = target.clone();
    let is_pod = target.kind == "Pod";
    // Words in upper case are for the person to fill in.
    if is_pod || cause == Cause::NoCredentials {
        shown
            .namespace
            .get_or_insert_with(|| "NAMESPACE".to_owned());
        shown
            .container
            .get_or_insert_with(|| "CONTAINER".to_owned());
    }
    let ground = Ground {
        target: &shown,
        image,
        secrets: &facts,
        spare_secret: None,
        elsewhere: None,
        service_account: pod.service_account.as_deref().unwrap_or("default"),
        account_secrets: None,
        free_name: None,
        proof: None,
        runtime,
    };
    let mut fixes = if cause == Cause::Unknown {
        Vec::new()
    } else {
        fixes::fixes(&ground, verdict)
    };
    for fix in &mut fixes {
        fix.certain = false;
        fix.confirm = fix.confirm.take().filter(|_| is_pod);
    }
    fixes
}

/// The command that asks where the text could only be read.
pub(super) fn deciding(target: &Target, verdict: &Verdict) -> Option<Decider> {
    if target.kind != "Pod" && Reference::parse(&target.image).is_err() {
        return None;
    }
    let mut open: Vec<&str> = verdict
        .alternatives
        .iter()
        .map(|cause| cause.name())
        .collect();
    if let Some(cause) = verdict.cause.filter(|cause| *cause != Cause::Unknown) {
        open.insert(0, cause.name());
    }
    let description = if open.len() > 1 {
        format!(
            "Ask the registry, which decides between {}",
            open.join(", ")
        )
    } else {
        "Ask the registry, which proves it".to_owned()
    };
    Some(Decider {
        description,
        command: Some(decider::why(target)),
    })
}
