//! The pull replayed with the pod's own credentials, in the words of a diagnosis.

use towline_cause::{Cause, CauseName, Step};
use towline_dialect::is_public_registry;
use towline_keyring::Candidate;
use towline_oci::Reference;
use towline_probe::{Clock, Outcome, RateLimit, Report, StepReport};

use crate::prober::Asked;
use crate::{Evidence, Sight, StepOutcome, StepSeen};

/// What a replay showed.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Why it stopped; `None` where every step went well.
    pub failure: Option<ProofFailure>,
    /// Each step.
    pub steps: Vec<StepSeen>,
    /// Tags near the one that is missing, nearest first.
    pub tags_near: Vec<String>,
    /// The only tag that differs from it in nothing but characters that look alike: a slip of the finger.
    pub tag_alike: Option<String>,
    /// Repositories near the one that is missing, nearest first.
    pub repositories_near: Vec<String>,
    /// Platforms that the image exists for.
    pub platforms: Vec<String>,
    /// Whether the replay ran on the node that fails, or on the same machine.
    pub on_node: bool,
    /// Whether the platform that it was for is known to be the node's: otherwise it is that of this machine.
    pub for_nodes_platform: bool,
    /// What the reference means.
    pub digest: Option<String>,
    /// Where the clocks there and at the registry are apart by more than means nothing: how, in words.
    pub clock: Option<String>,
    /// What the registry said of its rate limit.
    pub rate_limit: Option<RateLimit>,
    /// From where it was seen, and by which client.
    pub seen: (String, String),
}

/// The client that replays.
pub(crate) const SEEN_BY: &str = "towline probe";

impl Proof {
    /// What a clock that is wrong shows, where the failure does not say it already.
    pub(crate) fn clock_evidence(&self) -> Option<Evidence> {
        let words = self.clock.as_ref()?;
        let said = self.failure.as_ref();
        let (seen_from, seen_by) = self.seen.clone();
        let said = said.is_some_and(|failed| failed.detail.contains(words));
        (!said).then(|| Evidence {
            fact: words.clone(),
            seen_from,
            seen_by,
        })
    }

    /// How the pull goes from there, in short.
    pub fn sight(&self) -> Sight {
        let failed = self.failure.as_ref();
        Sight {
            seen_from: self.seen.0.clone(),
            seen_by: self.seen.1.clone(),
            pulls: failed.is_none(),
            cause: failed.map(|failed| failed.cause),
            step: failed.map(|failed| failed.step),
            detail: failed.map(|failed| failed.detail.clone()),
            digest: self.digest.clone(),
        }
    }
}

/// Why a replay stopped.
#[derive(Debug, Clone)]
pub struct ProofFailure {
    /// The cause.
    pub cause: Cause,
    /// The step.
    pub step: Step,
    /// What was attempted, on what, and what came back.
    pub detail: String,
    /// Causes left open.
    pub alternatives: Vec<Cause>,
    /// Scheme, host and port that failed.
    pub endpoint: Option<String>,
}

/// Puts the report of a replay into the words of a diagnosis, for whoever offers `candidates`: the replay may have been made for
/// another pod that offers the same logins from secrets of its own.
pub(crate) fn of_asked(
    asked: &Asked,
    candidates: &[Candidate],
    (from, on_node): (&str, bool),
) -> Proof {
    let mut proof = of_report(&asked.report, (from, SEEN_BY), on_node);
    for (theirs, own) in asked.candidates.iter().zip(candidates) {
        if theirs.origin != own.origin {
            let (theirs, own) = (theirs.origin.to_string(), own.origin.to_string());
            for fact in proof.steps.iter_mut().flat_map(|step| &mut step.facts) {
                *fact = fact.replace(&theirs, &own);
            }
        }
    }
    proof
}

/// Puts a report into the words of a diagnosis.
pub(crate) fn of_report(report: &Report, (from, by): (&str, &str), on_node: bool) -> Proof {
    let seen = |step: &StepReport| StepSeen {
        seen_from: Some(from.to_owned()),
        seen_by: Some(by.to_owned()),
        ..step_seen(step)
    };
    let clock = report.clock.as_ref().filter(|clock| clock.differs());
    Proof {
        failure: report.failure.as_ref().map(|failed| ProofFailure {
            cause: of_name(
                failed.cause(),
                failed.endpoint.as_deref(),
                report.reference.as_deref().unwrap_or(&report.image),
            ),
            step: failed.step,
            alternatives: failed.alternatives.iter().map(CauseName::cause).collect(),
            detail: failed.detail.clone(),
            endpoint: failed.endpoint.clone(),
        }),
        steps: report.steps.iter().map(seen).collect(),
        tags_near: report.tags_near.clone(),
        tag_alike: report.tag_alike.clone(),
        repositories_near: report.repositories_near.clone(),
        platforms: report.platforms.iter().map(ToString::to_string).collect(),
        on_node,
        for_nodes_platform: false,
        digest: report.digest.as_ref().map(ToString::to_string),
        clock: clock.map(Clock::words),
        rate_limit: report.rate_limit.clone(),
        seen: (from.to_owned(), by.to_owned()),
    }
}

/// A name that is not found, of a registry that everybody knows: the resolver is wrong, and no other image helps.
pub(crate) fn of_name(cause: Cause, endpoint: Option<&str>, image: &str) -> Cause {
    let asked = endpoint.map(|endpoint| {
        let rest = endpoint
            .split_once("://")
            .map_or(endpoint, |(_, rest)| rest);
        rest.trim_end_matches('/').to_owned()
    });
    let host = asked.or_else(|| Some(Reference::parse(image).ok()?.api_host().to_owned()));
    match cause {
        Cause::DnsNameNotFound if host.is_some_and(|host| is_public_registry(&host)) => {
            Cause::DnsFailed
        }
        cause => cause,
    }
}

fn step_seen(step: &StepReport) -> StepSeen {
    StepSeen {
        step: step.step,
        outcome: match step.outcome {
            Outcome::Ok => StepOutcome::Ok,
            Outcome::Failed => StepOutcome::Failed,
            Outcome::Skipped => StepOutcome::Skipped,
        },
        facts: vec![step.text.clone()],
        seen_from: None,
        seen_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_everybody_knows_is_the_resolvers_fault() {
        let own = "r.corp/team/app:v1";
        for (endpoint, image, want) in [
            (
                Some("https://registry-1.docker.io"),
                "nginx:1.25",
                Cause::DnsFailed,
            ),
            (
                Some("https://ghcr.io:443/"),
                "ghcr.io/team/app:v1",
                Cause::DnsFailed,
            ),
            (None, "nginx:1.25", Cause::DnsFailed),
            (
                Some("https://mirror.corp"),
                "nginx:1.25",
                Cause::DnsNameNotFound,
            ),
            (Some("https://r.corp"), own, Cause::DnsNameNotFound),
            (None, own, Cause::DnsNameNotFound),
        ] {
            assert_eq!(
                of_name(Cause::DnsNameNotFound, endpoint, image),
                want,
                "{image}"
            );
        }
        let refused = of_name(Cause::ConnectionRefused, None, "nginx:1.25");
        assert_eq!(refused, Cause::ConnectionRefused);
    }
}
