//! The pull replayed with the pod's own credentials, in the words of a diagnosis.

use towline_cause::{Cause, CauseName, Step};
use towline_keyring::Candidate;
use towline_oci::{Platform, Reference};
use towline_probe::{Outcome, Report, Request, StepReport};

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
}

/// Replays the pull and puts the report into the words of a diagnosis.
pub async fn replay(
    registry: &towline_distribution::Client,
    image: &Reference,
    platform: Platform,
    candidates: Vec<Candidate>,
    on_node: bool,
) -> Proof {
    let mut request = Request::new(image.clone().with_default_tag().to_string());
    request.platform = platform;
    request.candidates = candidates;
    of_report(towline_probe::run(registry, request).await, on_node)
}

fn of_report(report: Report, on_node: bool) -> Proof {
    Proof {
        failure: report.failure.map(|failed| ProofFailure {
            cause: failed.cause(),
            step: failed.step,
            alternatives: failed.alternatives.iter().map(CauseName::cause).collect(),
            detail: failed.detail,
        }),
        steps: report.steps.into_iter().map(step_seen).collect(),
        tags_near: report.tags_near,
        platforms: report.platforms.iter().map(ToString::to_string).collect(),
        on_node,
    }
}

fn step_seen(step: StepReport) -> StepSeen {
    StepSeen {
        step: step.step,
        outcome: match step.outcome {
            Outcome::Ok => StepOutcome::Ok,
            Outcome::Failed => StepOutcome::Failed,
            Outcome::Skipped => StepOutcome::Skipped,
        },
        facts: vec![step.text],
    }
}
