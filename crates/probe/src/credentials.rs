//! Which credential, from where, was offered, and what the registry said to it.

use std::collections::BTreeMap;

use towline_cause::{Cause, Failure, Group, Step};
use towline_distribution::{Fact, Repository, Resolved};
use towline_keyring::Candidate;
use towline_oci::Reference;

use crate::content::is_silence;
use crate::contrast;
use crate::limit::RateLimit;
use crate::near;
use crate::report::{FailureReport, Outcome, Tried};
use crate::run::{Found, Probe};

/// The most repositories that are read to find those like a missing one: a page or two.
const MOST_REPOSITORIES: usize = 1000;
/// The most tags that are read to find those like a missing one.
const MOST_TAGS: usize = 5000;

/// Tries the candidates in order as the kubelet does, stopping at the first that works, and then without any. Gives what the pull
/// would get; `None` where it would get nothing.
pub(crate) async fn try_all(probe: &mut Probe<'_>, reference: &Reference) -> Option<Found> {
    let candidates = probe.request.candidates.clone();
    let mut found = None;
    let mut failures = Vec::new();
    for candidate in &candidates {
        match attempt(probe, reference, candidate).await {
            Ok(got) => {
                found = Some(got);
                break;
            }
            Err(failure) => failures.push(failure),
        }
        // Who says nothing to one says nothing to the next, and each would be waited for.
        if failures.last().is_some_and(is_silence) {
            break;
        }
    }
    // The kubelet pulls without a login only where no candidate matched; the answer tells a bad login from a private image.
    let said = candidates.iter().any(|one| one.credential.is_anonymous());
    if !said && !failures.last().is_some_and(is_silence) {
        match attempt(probe, reference, &Candidate::anonymous()).await {
            Ok(got) => {
                probe.report.anonymous = Some(true);
                if candidates.is_empty() {
                    found = Some(got);
                }
            }
            Err(failure) => {
                probe.report.anonymous = answered(&failure).then_some(false);
                if candidates.is_empty() {
                    failures.push(failure);
                }
            }
        }
    }
    let facts = probe.new_facts();
    if let Some(limit) = RateLimit::of(&facts, jiff::Timestamp::now()) {
        probe.report.rate_limit = Some(limit);
    }
    if let Some((repository, resolved)) = found {
        authenticated(probe, Outcome::Ok, &facts);
        resolved_step(probe, reference, &resolved);
        return Some((repository, resolved));
    }
    let failure = most_telling(failures)?;
    let outcome = match failure.step() {
        Step::Authenticate => Outcome::Failed,
        _ if let_in(&failure) => Outcome::Ok,
        _ => Outcome::Skipped,
    };
    authenticated(probe, outcome, &facts);
    probe.fail(&failure);
    if failure.cause() == Cause::TagNotFound {
        tags_near(probe, reference).await;
    }
    if failure.cause() == Cause::RepositoryNotFound {
        repositories_near(probe, reference).await;
    }
    contrast::with_nobodys(probe, reference, &failure).await;
    None
}

async fn attempt(
    probe: &mut Probe<'_>,
    reference: &Reference,
    candidate: &Candidate,
) -> Result<(Repository, Resolved), Failure> {
    let repository = probe.repository(reference, candidate);
    // Docker Hub counts a GET as a pull and a HEAD not: only a manifest that is there is fetched.
    // A refusal is asked again with GET where only that tells more: what a 404 means.
    let outcome = match repository.head_manifest(&reference.target()).await {
        Err(failure)
            if failure.cause() == Cause::RateLimited
                || failure.step() == Step::Authenticate
                || is_silence(&failure) =>
        {
            Err(failure)
        }
        _ => repository.resolve().await,
    };
    probe.report.tried.push(Tried {
        credential: candidate.credential.to_string(),
        origin: candidate.origin.to_string(),
        accepted: outcome.as_ref().err().is_none_or(let_in),
        failure: outcome.as_ref().err().map(FailureReport::from),
    });
    outcome.map(|resolved| (repository, resolved))
}

/// Whether a failure shows that the registry took the credential: it answered about what lies behind it. A connection that was cut,
/// an answer of something else, or a limit says nothing of the credential.
fn let_in(failure: &Failure) -> bool {
    failure.step() > Step::Authenticate
        && (failure.cause().group() == Group::Absent || failure.cause() == Cause::DigestMismatch)
}

/// Whether the registry itself said no.
fn answered(failure: &Failure) -> bool {
    matches!(failure.step(), Step::Authenticate | Step::Resolve)
        && !matches!(
            failure.cause(),
            Cause::TokenServiceUnreachable
                | Cause::RegistryError
                | Cause::RateLimited
                | Cause::ConnectionReset
                | Cause::ConnectionTimeout
        )
}

/// The failure that got furthest; of equals the first, since that is the credential that is meant to work.
fn most_telling(failures: Vec<Failure>) -> Option<Failure> {
    let furthest = failures.iter().map(Failure::step).max()?;
    failures
        .into_iter()
        .find(|failure| failure.step() == furthest)
}

fn authenticated(probe: &mut Probe<'_>, outcome: Outcome, facts: &[Fact]) {
    let lines: Vec<String> = probe
        .report
        .tried
        .iter()
        .map(|tried| {
            let verdict = match &tried.failure {
                None => "accepted".to_owned(),
                Some(failure) if tried.accepted => format!("let in ({})", failure.cause),
                Some(failure) if failure.step == Step::Authenticate => {
                    format!("refused ({})", failure.cause)
                }
                Some(failure) => format!("undecided ({})", failure.cause),
            };
            if tried.origin == tried.credential || tried.credential == "anonymous" {
                format!("{}: {verdict}", tried.credential)
            } else {
                format!("{} from {}: {verdict}", tried.credential, tried.origin)
            }
        })
        .collect();
    let mut values = BTreeMap::new();
    for fact in facts.iter().chain(&probe.report.facts) {
        if let Fact::Challenge { challenges, .. } = fact
            && let Some(first) = challenges.first()
        {
            let mut put = |name: &str, value: &Option<String>| {
                if let Some(value) = value {
                    values.insert(name.to_owned(), value.clone());
                }
            };
            put("scheme", &Some(first.scheme.clone()));
            put("realm", &first.realm);
            put("service", &first.service);
            put("scope", &first.scope);
        }
    }
    if let Some(anonymous) = probe.report.anonymous {
        values.insert(
            "anonymous".to_owned(),
            if anonymous { "works" } else { "refused" }.to_owned(),
        );
    }
    probe.step(Step::Authenticate, outcome, lines.join("; "), values);
}

fn resolved_step(probe: &mut Probe<'_>, reference: &Reference, resolved: &Resolved) {
    probe.report.digest = Some(resolved.digest.clone());
    let facts = BTreeMap::from([
        ("digest".to_owned(), resolved.digest.to_string()),
        ("mediaType".to_owned(), resolved.media_type.clone()),
        ("endpoint".to_owned(), resolved.endpoint.clone()),
    ]);
    let text = format!("{} is {}", reference.target(), resolved.digest);
    probe.step(Step::Resolve, Outcome::Ok, text, facts);
}

/// The repository as whoever was let in sees it.
fn let_into(probe: &Probe<'_>, reference: &Reference) -> Repository {
    let let_in = probe.report.tried.iter().position(|tried| tried.accepted);
    let candidate = let_in
        .and_then(|at| probe.request.candidates.get(at).cloned())
        .unwrap_or_else(Candidate::anonymous);
    probe.repository(reference, &candidate)
}

/// Of registries that list what they have: the large public ones do not.
async fn repositories_near(probe: &mut Probe<'_>, reference: &Reference) {
    if contrast::HIDING.contains(&reference.registry()) {
        return;
    }
    // Suggestions only: without them the answer is as right.
    if let Ok(names) = let_into(probe, reference).catalog(MOST_REPOSITORIES).await {
        probe.report.repositories_near = near::repositories(reference.repository(), &names);
    }
}

async fn tags_near(probe: &mut Probe<'_>, reference: &Reference) {
    let repository = let_into(probe, reference);
    // Suggestions only: without them the answer is as right.
    if let Ok(tags) = repository.tags(MOST_TAGS).await {
        probe.report.tags_near = near::near(&reference.target(), &tags);
        // Of tags that were not all read another may look the same.
        if tags.len() < MOST_TAGS {
            probe.report.tag_alike = near::sole_alike(&reference.target(), &tags).cloned();
        }
    }
}
