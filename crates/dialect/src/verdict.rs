//! What a speaker's words amount to.

use towline_cause::{Cause, Confidence, Step};

/// A cause with what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) cause: Cause,
    pub(crate) confidence: Confidence,
    pub(crate) alternatives: Vec<Cause>,
    /// Where it happened, when the words say so; else the context does.
    pub(crate) step: Option<Step>,
}

/// The words allow this cause only.
pub(crate) fn stated(cause: Cause) -> Verdict {
    Verdict {
        cause,
        confidence: Confidence::Stated,
        alternatives: Vec::new(),
        step: only_step(cause),
    }
}

/// The words fit this cause best, and leave these open, best first.
pub(crate) fn likely(cause: Cause, alternatives: &[Cause]) -> Verdict {
    Verdict {
        cause,
        confidence: Confidence::Likely,
        alternatives: alternatives.to_vec(),
        step: only_step(cause),
    }
}

/// The words leave these open and none of them fits best.
pub(crate) fn open(alternatives: &[Cause]) -> Verdict {
    Verdict {
        cause: Cause::Unknown,
        confidence: Confidence::Unknown,
        alternatives: alternatives.to_vec(),
        step: None,
    }
}

impl Verdict {
    pub(crate) fn at(mut self, step: Step) -> Self {
        self.step = Some(step);
        self
    }
}

/// The step of a cause that happens at one step only.
fn only_step(cause: Cause) -> Option<Step> {
    match cause.steps() {
        [one] => Some(*one),
        _ => None,
    }
}
