//! One scenario from its beginning to its end.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use towline_cause::{Cause, Confidence, Step};
use towline_explain::Diagnosis;
use towline_lab::scenario::{Place, Remedy, Scenario};
use towline_node::lab::{Lab, Staged};

use super::show;

/// How long a pod has to fail, and later to run. A pull that fails late runs into several timeouts first.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of a scenario.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trial {
    /// Its name.
    pub(crate) scenario: String,
    /// The cause that it was made for.
    pub(crate) expected: Option<Cause>,
    /// The step that it was made for.
    pub(crate) expected_step: Option<Step>,
    /// The least confidence that is right.
    pub(crate) expected_confidence: Confidence,
    /// The cause of the answer.
    pub(crate) cause: Option<Cause>,
    /// The step of the answer.
    pub(crate) step: Option<Step>,
    /// How sure the answer is.
    pub(crate) confidence: Option<Confidence>,
    /// What the answer leaves open.
    pub(crate) alternatives: Vec<Cause>,
    /// Whether the answer is the right one.
    pub(crate) right: bool,
    /// What was done to mend it.
    pub(crate) mended_by: Vec<String>,
    /// Whether the workload ran afterwards; absent where nothing was mended.
    pub(crate) fixed: Option<bool>,
    /// Why it could not be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
}

impl Trial {
    fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.name.clone(),
            expected: scenario.cause,
            expected_step: scenario.step,
            expected_confidence: scenario.confidence,
            cause: None,
            step: None,
            confidence: None,
            alternatives: Vec::new(),
            right: false,
            mended_by: Vec::new(),
            fixed: None,
            error: None,
            seconds: 0.0,
        }
    }

    /// Whether it showed what it was made for. Where scenarios are kept nothing is mended.
    pub(crate) fn well(&self, kept: bool) -> bool {
        self.right && self.error.is_none() && (kept || self.fixed != Some(false))
    }

    fn judge(&mut self, scenario: &Scenario, diagnosis: &Diagnosis) {
        self.alternatives.clone_from(&diagnosis.alternatives);
        self.answered(
            scenario,
            (diagnosis.cause, diagnosis.step, diagnosis.confidence),
        );
    }

    /// What the words of another cluster say, to whom nothing else can be asked.
    fn read(&mut self, scenario: &Scenario, reading: &towline_dialect::Reading) {
        self.alternatives.clone_from(&reading.alternatives);
        self.answered(
            scenario,
            (Some(reading.cause), reading.step, reading.confidence),
        );
    }

    fn answered(
        &mut self,
        scenario: &Scenario,
        (cause, step, confidence): (Option<Cause>, Option<Step>, Confidence),
    ) {
        (self.cause, self.step, self.confidence) = (cause, step, Some(confidence));
        self.right = cause == scenario.cause
            && scenario.step.is_none_or(|wanted| step == Some(wanted))
            && confidence >= scenario.confidence;
    }
}

/// A scenario that was played, and how it stands where it is kept.
pub(crate) struct Played<'a> {
    /// What came of it.
    pub(crate) trial: Trial,
    /// Its host falls when this is dropped.
    pub(crate) kept: Option<Staged<'a>>,
}

/// Runs a scenario and tells it while it happens.
pub(crate) async fn told<'a>(lab: &'a Lab, scenario: &'a Scenario, keep: bool) -> Played<'a> {
    one(lab, scenario, keep, true).await
}

/// Runs a scenario and says nothing.
pub(crate) async fn quiet<'a>(lab: &'a Lab, scenario: &'a Scenario, keep: bool) -> Played<'a> {
    one(lab, scenario, keep, false).await
}

async fn one<'a>(lab: &'a Lab, scenario: &'a Scenario, keep: bool, told: bool) -> Played<'a> {
    let started = Instant::now();
    let mut trial = Trial::new(scenario);
    let ended = Box::pin(play(lab, scenario, keep, told, &mut trial)).await;
    trial.seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let kept = match ended {
        Ok(kept) => kept,
        Err(error) => {
            trial.error = Some(format!("{error:#}"));
            None
        }
    };
    Played { trial, kept }
}

/// Gives the scenario as it stands where it is to be kept.
async fn play<'a>(
    lab: &'a Lab,
    scenario: &'a Scenario,
    keep: bool,
    told: bool,
    trial: &mut Trial,
) -> anyhow::Result<Option<Staged<'a>>> {
    if told {
        show::beginning(scenario)?;
    }
    if let Place::Text { text } = &scenario.place {
        let reading = towline_dialect::read(text);
        trial.read(scenario, &reading);
        if told {
            show::reading(text, &reading)?;
        }
        return Ok(None);
    }
    let mut staged = lab.stage(scenario).await?;
    let ended = Box::pin(show_it(&mut staged, scenario, (keep, told), trial)).await;
    if keep {
        return ended.map(|()| Some(staged));
    }
    // Before the others are over, so that the end is not long.
    staged.clear().await;
    ended.map(|()| None)
}

/// Has it fail, explained, and mended unless it is to be kept as it is.
async fn show_it(
    staged: &mut Staged<'_>,
    scenario: &Scenario,
    (keep, told): (bool, bool),
    trial: &mut Trial,
) -> anyhow::Result<()> {
    let pod = staged.fails(PATIENCE).await?;
    if told {
        show::failure(staged, &pod).await?;
    }
    let diagnosis = staged.explain(&pod).await?;
    trial.judge(scenario, &diagnosis);
    if told {
        show::answer(staged, &diagnosis)?;
    }
    if keep || scenario.remedy == Remedy::Nothing {
        return Ok(());
    }
    trial.fixed = Some(false);
    trial.mended_by = staged.mend(&diagnosis).await.context("mend it")?;
    if told {
        show::remedy(&trial.mended_by)?;
    }
    let pod = staged.runs(PATIENCE).await.context("after the fix")?;
    trial.fixed = Some(true);
    if told {
        show::running(&pod)?;
    }
    Ok(())
}
