//! Scenarios in words: the list, one while it happens, the table of many.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use towline_cause::Confidence;
use towline_explain::Diagnosis;
use towline_lab::scenario::Scenario;
use towline_node::lab::{Runtime, Staged, kubectl};

use super::trial::Trial;
use crate::commands::why;
use crate::output::{self, BAD, BOLD, DIM, Format, GOOD, styled, wrapped};
use crate::pods_view::Row;
use crate::table;

const API_VERSION: &str = "towline.dev/v1";
const WIDTH: usize = 80;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    scenarios: &'a [Scenario],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    api_version: &'static str,
    kind: &'static str,
    /// What ran the pods.
    runtime: &'static str,
    /// What the printed fixes were applied with: `kubectl`, or the same requests where there is none.
    applied_with: &'static str,
    seconds: f64,
    trials: &'a [Trial],
}

/// What there is to run.
pub(super) fn list(scenarios: &[Scenario], format: Format) -> anyhow::Result<()> {
    if format != Format::Text {
        let list = List {
            api_version: API_VERSION,
            kind: "LabScenarios",
            scenarios,
        };
        return output::document(format, &list);
    }
    for scenario in scenarios {
        let cause = scenario.cause.map_or("-", |cause| cause.name());
        output::line(format!(
            "{:<24} {cause}",
            styled(BOLD, format!("{:<24}", scenario.name)).trim_end()
        ))?;
        output::line(format!("    {}", wrapped(&scenario.story, WIDTH - 4, 4)))?;
    }
    Ok(())
}

/// What a person did.
pub(super) fn beginning(scenario: &Scenario) -> std::io::Result<()> {
    output::line(format!(
        "{}: {}",
        styled(BOLD, &scenario.name),
        scenario.story
    ))
}

/// What kubectl shows of it.
pub(super) async fn failure(staged: &Staged<'_>, pod: &Pod) -> anyhow::Result<()> {
    let (namespace, _) = staged.place();
    let row = Row::of(pod, Timestamp::now());
    output::line(format!(
        "\n{}",
        styled(DIM, format!("$ kubectl -n {namespace} get pods"))
    ))?;
    let name = row.pod.rsplit('/').next().unwrap_or_default();
    output::line(format!(
        "{name}   {}   {}",
        row.ready,
        styled(BAD, &row.status)
    ))?;
    output::line(styled(DIM, format!("$ kubectl -n {namespace} events")))?;
    for event in staged.events(pod).await? {
        let text = format!(
            "{} {}",
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
        output::line(format!("  {}", wrapped(&text, WIDTH - 4, 4)))?;
    }
    Ok(())
}

/// What `towline why` says of it.
pub(super) fn answer(staged: &Staged<'_>, diagnosis: &Diagnosis) -> anyhow::Result<()> {
    let (namespace, _) = staged.place();
    let name = &diagnosis.target.name;
    output::line(format!(
        "\n{}",
        styled(DIM, format!("$ towline why pod/{name} -n {namespace}"))
    ))?;
    Ok(why::print_text(diagnosis)?)
}

/// What the words of another cluster say.
pub(super) fn reading(text: &str, reading: &towline_dialect::Reading) -> std::io::Result<()> {
    let step = reading.step.map_or("-", towline_cause::Step::name);
    output::line(format!("\n  {}", wrapped(text, WIDTH - 2, 2)))?;
    output::line(format!(
        "\n  cause      {} ({}, step {step})",
        styled(BAD, reading.cause),
        reading.confidence
    ))?;
    let summary = wrapped(reading.cause.summary(), WIDTH - 13, 13);
    output::line(format!("             {summary}"))?;
    let fix = wrapped(reading.cause.fix(), WIDTH - 13, 13);
    output::line(format!("  fix        {fix}"))
}

/// What was done.
pub(super) fn remedy(lines: &[String]) -> std::io::Result<()> {
    output::line("")?;
    for line in lines {
        output::line(match line.strip_prefix("# ") {
            Some(words) => format!("{} {words}", styled(DIM, "The lab does it for you:")),
            None => styled(DIM, line),
        })?;
    }
    Ok(())
}

/// That it runs.
pub(super) fn running(pod: &Pod) -> std::io::Result<()> {
    let row = Row::of(pod, Timestamp::now());
    let name = row.pod.rsplit('/').next().unwrap_or_default();
    output::line(format!(
        "{name}   {}   {}",
        row.ready,
        styled(GOOD, &row.status)
    ))
}

/// One line while many run.
pub(super) fn progress(trial: &Trial, number: usize, of: usize) -> String {
    let mark = if trial.well(false) {
        styled(GOOD, "✓")
    } else {
        styled(BAD, "✗")
    };
    let cause = trial.cause.map_or("-", |cause| cause.name());
    format!("{number:>3}/{of} {mark} {:<24} {cause}", trial.scenario)
}

/// What came of all.
pub(super) fn outcome(
    trials: &[Trial],
    runtime: Runtime,
    format: Format,
    took: Duration,
) -> anyhow::Result<()> {
    let applied_with = if kubectl().is_some() {
        "kubectl"
    } else {
        "api"
    };
    let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    if format != Format::Text {
        let outcome = Outcome {
            api_version: API_VERSION,
            kind: "LabRun",
            runtime: match runtime {
                Runtime::Towline => "towline",
                Runtime::Containerd => "containerd",
            },
            applied_with,
            seconds,
            trials,
        };
        return output::document(format, &outcome);
    }
    if trials.len() > 1 {
        let header = [
            "Scenario",
            "Expected",
            "Answer",
            "Confidence",
            "Step",
            "Fixed",
        ];
        let rows: Vec<Vec<String>> = trials.iter().map(row).collect();
        output::line("")?;
        for line in table::layout(&header.map(str::to_owned), &rows) {
            output::line(line)?;
        }
    }
    for trial in trials {
        if let Some(error) = &trial.error {
            let text = format!("{}: {error}", trial.scenario);
            output::note(styled(BAD, wrapped(&text, WIDTH, 2)));
        }
    }
    let right = trials.iter().filter(|trial| trial.right).count();
    let causes = |of: &dyn Fn(&Trial) -> bool| {
        let found = trials.iter().filter(|trial| of(trial));
        let causes: BTreeSet<_> = found.filter_map(|trial| trial.expected).collect();
        causes.len()
    };
    let proven = |trial: &Trial| trial.right && trial.confidence == Some(Confidence::Proven);
    output::line(format!(
        "\n{right} of {} scenarios answered right, {} causes ({} of them proven), in {seconds:.0} s.",
        trials.len(),
        causes(&|_| true),
        causes(&proven),
    ))?;
    Ok(())
}

fn row(trial: &Trial) -> Vec<String> {
    let name =
        |cause: Option<towline_cause::Cause>| cause.map_or("-", |cause| cause.name()).to_owned();
    let fixed = match trial.fixed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    vec![
        trial.scenario.clone(),
        name(trial.expected),
        name(trial.cause),
        trial
            .confidence
            .map_or("-", towline_cause::Confidence::name)
            .to_owned(),
        trial.step.map_or("-", towline_cause::Step::name).to_owned(),
        fixed.to_owned(),
    ]
}
