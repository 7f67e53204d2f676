//! From what a paste shows to diagnoses.

use towline_cause::{Cause, Confidence};
use towline_dialect::Reading;
use towline_oci::Reference;

use super::remedy::{deciding, fixes};
use super::seen::{Container, MAX_PODS, Pod, Said, Seen, is_pull_reason};
use super::silent::{A_SECRET, silent};
use crate::decide::Verdict;
use crate::retired;
use crate::scrub::scrub;
use crate::speaker;
use crate::{Diagnosis, Evidence, Retry, Target};

/// Most diagnoses of one paste.
const MAX_DIAGNOSES: usize = MAX_PODS;
/// Most sentences that a diagnosis quotes.
const MAX_EVIDENCE: usize = 3;
/// Most bytes of a sentence that are quoted.
const MAX_QUOTE: usize = 2048;

/// What one sentence says.
struct Statement {
    reading: Reading,
    said: Said,
    /// The pull went well.
    good: bool,
}

/// One image of one pod, and all that was said of it, newest first.
struct Case<'a> {
    pod: &'a Pod,
    container: Option<&'a Container>,
    image: String,
    statements: Vec<Statement>,
}

/// Every image that a paste speaks of.
pub(super) fn all(seen: &Seen, cut: bool) -> Vec<Diagnosis> {
    let mut diagnoses: Vec<Diagnosis> = Vec::new();
    for pod in &seen.pods {
        if diagnoses.len() >= MAX_DIAGNOSES {
            break;
        }
        diagnoses.extend(cases(pod).into_iter().map(one));
    }
    let spoken = |diagnosis: &Diagnosis| diagnosis.pulls || diagnosis.cause != Some(Cause::Unknown);
    // A bare "it waits" is worth nothing beside the error of the same image.
    let known: Vec<String> = diagnoses
        .iter()
        .filter(|diagnosis| spoken(diagnosis))
        .map(|diagnosis| diagnosis.target.image.clone())
        .collect();
    diagnoses.retain(|diagnosis| {
        spoken(diagnosis)
            || diagnosis.target.kind == "Pod"
            || !(known.contains(&diagnosis.target.image)
                || (diagnosis.target.image.is_empty() && !known.is_empty()))
    });
    diagnoses.sort_by_key(|diagnosis| (diagnosis.pulls, !spoken(diagnosis)));
    if diagnoses.is_empty() {
        diagnoses.push(silent(seen.secret));
    } else if seen.secret {
        let note = format!("the text holds {A_SECRET}");
        diagnoses[0].unread.push(note);
    }
    if cut || seen.cut || diagnoses.len() >= MAX_DIAGNOSES {
        let note = format!(
            "the text is longer than what is read of it: {MAX_PODS} pods, {MAX_DIAGNOSES} answers, {} MiB",
            super::MAX_INPUT >> 20
        );
        diagnoses[0].unread.push(note);
    }
    diagnoses
}

/// Pods of one workload with the same image and the same cause made one answer.
pub(super) fn joined(each: Vec<Diagnosis>) -> Vec<Diagnosis> {
    let mut diagnoses = Vec::new();
    for one in each {
        fold(&mut diagnoses, one);
    }
    diagnoses
}

fn fold(diagnoses: &mut Vec<Diagnosis>, new: Diagnosis) {
    let same = |old: &Diagnosis| {
        let (a, b) = (&old.target, &new.target);
        a.image == b.image
            && old.cause == new.cause
            && old.pulls == new.pulls
            && a.namespace == b.namespace
            && a.container == b.container
            && (a.name == b.name || (a.owner.is_some() && a.owner == b.owner))
    };
    match diagnoses.iter_mut().find(|old| same(old)) {
        Some(old) if old.target.name != new.target.name => old.evidence.push(Evidence {
            fact: format!("the same in pod {}", new.target.name),
            seen_from: "the pasted text".to_owned(),
            seen_by: "towline".to_owned(),
        }),
        Some(_) => {}
        None => diagnoses.push(new),
    }
}

fn cases(pod: &Pod) -> Vec<Case<'_>> {
    let mut statements = statements(pod);
    let mut cases: Vec<Case<'_>> = Vec::new();
    let open: Vec<&Container> = pod
        .containers
        .iter()
        .filter(|container| !container.has_image())
        .filter(|container| {
            container
                .reason
                .as_deref()
                .is_none_or(|r| is_pull_reason(r) || is_early(r))
        })
        .collect();
    for container in &open {
        let alone = open.len() == 1;
        let (mine, rest) = statements
            .into_iter()
            .partition(|s| is_about(s, container, alone));
        statements = rest;
        let case = Case {
            pod,
            container: Some(container),
            image: container.image.clone(),
            statements: with_waiting(container, mine),
        };
        let waits = container.reason.as_deref().is_some_and(is_pull_reason);
        if waits || !case.statements.is_empty() {
            cases.push(case);
        }
    }
    for statement in statements {
        let image = statement.reading.image.clone().unwrap_or_default();
        // A container that runs has its image, whatever an old event says.
        if pod
            .containers
            .iter()
            .any(|c| c.has_image() && c.image == image)
        {
            continue;
        }
        match cases
            .iter_mut()
            .find(|case| case.image == image || image.is_empty())
        {
            Some(case) => case.statements.push(statement),
            None => cases.push(Case {
                pod,
                container: None,
                image,
                statements: vec![statement],
            }),
        }
    }
    adopt(&mut cases);
    if cases.is_empty() && pod.runs {
        cases.push(Case {
            pod,
            container: None,
            image: pod
                .containers
                .first()
                .map(|c| c.image.clone())
                .unwrap_or_default(),
            statements: Vec::new(),
        });
    }
    cases
}

/// Sentences before the first that names an image belong to it.
fn adopt(cases: &mut Vec<Case<'_>>) {
    if cases.len() == 2
        && let Some(at) = cases.iter().position(|case| case.image.is_empty())
    {
        let nameless = cases.remove(at);
        cases[0].statements.extend(nameless.statements);
    }
}

/// Waiting reasons that say "not yet".
fn is_early(reason: &str) -> bool {
    matches!(reason, "ContainerCreating" | "PodInitializing")
}

fn is_about(statement: &Statement, container: &Container, alone: bool) -> bool {
    if let Some(name) = &statement.said.container {
        return *name == container.name;
    }
    match &statement.reading.image {
        Some(image) => *image == container.image || container.image.is_empty(),
        None => alone,
    }
}

fn with_waiting(container: &Container, mut statements: Vec<Statement>) -> Vec<Statement> {
    let text = container.message.clone().or_else(|| {
        container
            .reason
            .clone()
            .filter(|reason| is_pull_reason(reason))
    });
    if let Some(text) = text {
        let said = Said {
            text,
            ..Said::default()
        };
        statements.insert(0, statement(said));
    }
    statements
}

fn statement(said: Said) -> Statement {
    let good = said.text.starts_with("Successfully pulled image")
        || (said.text.starts_with("Container image \"")
            && said.text.contains("\" already present on machine"));
    let mut reading = towline_dialect::read(&said.text);
    if good {
        reading = Reading::unknown();
        reading.image = said.text.split('"').nth(1).map(str::to_owned);
    }
    Statement {
        reading,
        said,
        good,
    }
}

/// The sentences of a pod that are about pulls, newest first.
fn statements(pod: &Pod) -> Vec<Statement> {
    let mut said: Vec<&Said> = pod
        .said
        .iter()
        .rev()
        .filter(|said| is_about_pulls(said))
        .collect();
    if said.iter().all(|said| said.age.is_some()) {
        said.sort_by_key(|said| said.age);
    }
    said.into_iter().cloned().map(statement).collect()
}

/// `failed to "StartContainer" for "app" with ErrImagePull: "..."`
const REASONS_OF_SYNC: &[&str] = &[
    " with ErrImagePull: ",
    " with ErrImageNeverPull: ",
    " with InvalidImageName: ",
];

/// The kubelet uses `Failed` and `BackOff` also for containers that do not start, and other reasons for probes and volumes.
fn is_about_pulls(said: &Said) -> bool {
    let Some(reason) = said.reason.as_deref() else {
        return true;
    };
    let text = said.text.as_str();
    let begins = |beginnings: &[&str]| {
        beginnings
            .iter()
            .any(|beginning| text.starts_with(beginning))
    };
    match reason {
        "Failed" => match text.strip_prefix("Error: ") {
            // A secret that cannot be read stands where the reason should.
            Some(named) => {
                is_pull_reason(named.trim())
                    || towline_dialect::read(named).cause == Cause::PullSecretMalformed
            }
            None => {
                begins(&[
                    "Failed to pull image",
                    "Failed to apply default image tag",
                    "(combined from similar events): Failed to pull image",
                ]) || !begins(&["Failed to ", "(combined", "Error"])
            }
        },
        "BackOff" => text.contains("Back-off pulling image"),
        // Old releases tell the whole of it here.
        "FailedSync" => REASONS_OF_SYNC.iter().any(|reason| text.contains(reason)),
        "Pulled"
        | "InspectFailed"
        | "ErrImageNeverPull"
        | "FailedToRetrieveImagePullSecret"
        | "FailedCreatePodSandBox" => true,
        _ => false,
    }
}

/// The names in `Unable to retrieve some image pull secrets (a, b); ...`.
fn missing_secrets(statements: &[Statement]) -> Vec<String> {
    let names = statements.iter().filter_map(|statement| {
        let (_, after) = statement
            .said
            .text
            .split_once("Unable to retrieve some image pull secrets (")?;
        Some(after.split_once(')')?.0)
    });
    let mut all: Vec<String> = names
        .flat_map(|names| names.split(", "))
        .filter(|name| super::table::is_name(name))
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

fn one(case: Case<'_>) -> Diagnosis {
    let Case {
        pod,
        container,
        image,
        statements,
    } = case;
    let target = target(pod, container, &image);
    let missing = missing_secrets(&statements);
    let hint = |s: &&Statement| {
        !s.said
            .text
            .starts_with("Unable to retrieve some image pull secrets")
    };
    let newest = statements.iter().find(hint);
    let pulls = statements.is_empty() || newest.is_some_and(|statement| statement.good);
    let verdict = if pulls {
        Verdict {
            cause: None,
            step: None,
            confidence: Confidence::Stated,
            alternatives: Vec::new(),
        }
    } else {
        verdict(pod, container, &statements, &missing)
    };
    let parsed = Reference::parse(&image);
    let runtime = statements
        .iter()
        .find_map(|one| speaker::runtime_of(&one.said.text));
    let of_pod = (&target, pod, runtime);
    let fixes = fixes(of_pod, parsed.as_ref().ok(), &verdict, &missing);
    let open = verdict.cause.is_some();
    let decided_by = deciding(&target, &verdict).filter(|_| open);
    let mut evidence = evidence(pod, &statements, &verdict);
    let image_of = parsed.as_ref().ok();
    evidence.extend(image_of.and_then(|image| retired::evidence(image, verdict.cause)));
    let attempts = statements
        .iter()
        .filter_map(|statement| statement.said.count)
        .max();
    let retry = verdict.cause.map(|cause| Retry {
        attempts: None,
        last: None,
        next: None,
        waiting_helps: cause.transient(),
    });
    // Counts of events are of the same words, not of attempts: worth a word only.
    let mut unread = vec![
        "this rests on the pasted text alone: neither cluster nor registry was asked".to_owned(),
    ];
    unread.extend(attempts.map(|count| format!("the kubelet said so {count} times")));
    scrub(Diagnosis {
        pulls,
        cause: verdict.cause,
        step: verdict.step,
        confidence: verdict.confidence,
        summary: summary(&verdict, &parsed, &missing, &image),
        alternatives: verdict.alternatives,
        evidence,
        retry: retry.filter(|_| verdict.cause != Some(Cause::Unknown)),
        fixes,
        decided_by: decided_by.into_iter().collect(),
        unread,
        ..Diagnosis::about(target)
    })
}

fn verdict(
    pod: &Pod,
    container: Option<&Container>,
    statements: &[Statement],
    missing: &[String],
) -> Verdict {
    let typed = container.and_then(|container| {
        let pull = pod
            .pulls
            .iter()
            .find(|pull| pull.name == container.name && pull.image == container.image)?;
        Some((pull.cause.as_ref()?.cause(), pull.step))
    });
    if let Some((cause, step)) = typed.filter(|(cause, _)| *cause != Cause::Unknown) {
        return Verdict {
            cause: Some(cause),
            step,
            confidence: Confidence::Stated,
            alternatives: Vec::new(),
        };
    }
    let known = |statement: &&Statement| statement.reading.cause != Cause::Unknown;
    let hint = |statement: &&Statement| {
        statement
            .said
            .text
            .starts_with("Unable to retrieve some image pull secrets")
    };
    let reading = statements
        .iter()
        .filter(|statement| !hint(statement))
        .find(known)
        .or_else(|| statements.iter().find(known))
        .or_else(|| {
            statements
                .iter()
                .find(|s| !s.reading.alternatives.is_empty())
        })
        .or_else(|| statements.first())
        .map_or_else(Reading::unknown, |statement| statement.reading.clone());
    let mut verdict = Verdict {
        cause: Some(reading.cause),
        step: reading.step,
        confidence: reading.confidence,
        alternatives: reading.alternatives,
    };
    // The registry refuses, and the kubelet said that it lacks a secret: together they are one story.
    if !missing.is_empty()
        && matches!(
            reading.cause,
            Cause::NoCredentials | Cause::InsufficientPermission | Cause::RegistryPrefixMissing
        )
    {
        verdict
            .alternatives
            .retain(|cause| *cause != Cause::PullSecretMissing);
        verdict.alternatives.insert(0, reading.cause);
        verdict.cause = Some(Cause::PullSecretMissing);
        verdict.confidence = Confidence::Likely;
    }
    verdict
}

fn target(pod: &Pod, container: Option<&Container>, image: &str) -> Target {
    if pod.name.is_empty() {
        return Target::image(image);
    }
    Target {
        kind: "Pod".to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        container: container.map(|container| container.name.clone()),
        image: image.to_owned(),
        init: container.is_some_and(|container| container.init),
        node: pod.node.clone(),
        owner: pod.owner.clone(),
    }
}

fn summary(
    verdict: &Verdict,
    parsed: &Result<Reference, towline_oci::ReferenceError>,
    missing: &[String],
    image: &str,
) -> String {
    match verdict.cause {
        None => "by this text the image is there".to_owned(),
        Some(Cause::InvalidReference) if !image.is_empty() => match parsed {
            Err(error) => error.to_string(),
            Ok(_) => Cause::InvalidReference.summary().to_owned(),
        },
        Some(Cause::PullSecretMissing) if !missing.is_empty() => {
            format!("the registry refuses, and the kubelet lacks the pull secret {}", missing.join(", "))
        }
        Some(Cause::Unknown) => "the text does not say why: the error itself stands in an earlier `Failed` event, or, from Kubernetes 1.32 on, in the container's waiting message".to_owned(),
        Some(cause) => cause.summary().to_owned(),
    }
}

/// The sentences that the verdict rests on, newest first.
fn evidence(pod: &Pod, statements: &[Statement], verdict: &Verdict) -> Vec<Evidence> {
    let from = pod.node.as_ref().map_or_else(
        || "the pasted text".to_owned(),
        |node| format!("node {node}, as pasted"),
    );
    let telling = |s: &&Statement| {
        s.reading.cause != Cause::Unknown || verdict.cause == Some(Cause::Unknown) || s.good
    };
    let mut facts: Vec<String> = Vec::new();
    for statement in statements.iter().filter(telling) {
        let fact = quote(&statement.said.text);
        if facts.len() < MAX_EVIDENCE && !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    facts
        .into_iter()
        .map(|fact| Evidence {
            seen_by: speaker::of_pasted(&fact),
            fact,
            seen_from: from.clone(),
        })
        .collect()
}

/// One line, bounded.
fn quote(text: &str) -> String {
    let mut end = text.len().min(MAX_QUOTE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let words: Vec<&str> = text[..end].split_whitespace().collect();
    let mut line = words.join(" ");
    if end < text.len() {
        line.push_str(" ...");
    }
    line
}
