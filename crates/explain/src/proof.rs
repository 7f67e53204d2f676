//! The pull replayed with the pod's own credentials, in the words of a diagnosis.

use towline_cause::{Cause, CauseName, Step};
use towline_keyring::Candidate;
use towline_probe::{Outcome, StepReport};

use crate::prober::Asked;
use crate::{StepOutcome, StepSeen};

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
    /// Platforms that the image exists for.
    pub platforms: Vec<String>,
    /// Whether the replay ran on the node that fails, or on the same machine.
    pub on_node: bool,
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
pub(crate) fn of_asked(asked: &Asked, candidates: &[Candidate], on_node: bool) -> Proof {
    let report = &asked.report;
    let mut steps: Vec<StepSeen> = report.steps.iter().map(step_seen).collect();
    for (theirs, own) in asked.candidates.iter().zip(candidates) {
        if theirs.origin != own.origin {
            let (theirs, own) = (theirs.origin.to_string(), own.origin.to_string());
            for fact in steps.iter_mut().flat_map(|step| &mut step.facts) {
                *fact = fact.replace(&theirs, &own);
            }
        }
    }
    Proof {
        failure: report.failure.as_ref().map(|failed| ProofFailure {
            cause: failed.cause(),
            step: failed.step,
            alternatives: failed.alternatives.iter().map(CauseName::cause).collect(),
            detail: failed.detail.clone(),
            endpoint: failed.endpoint.clone(),
        }),
        steps,
        tags_near: report.tags_near.clone(),
        tag_alike: report.tag_alike.clone(),
        platforms: report.platforms.iter().map(ToString::to_string).collect(),
        on_node,
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
    }
}
