//! A diagnosis for people: the cause, the steps with ticks and crosses, the evidence, the fix. Fits 80 columns where words allow.

use towline_explain::{Diagnosis, Fix, Retry, StepOutcome};

use crate::output::{BAD, BOLD, DIM, GOOD, line, styled, wrapped};

const WIDTH: usize = 80;

/// Prints a diagnosis.
pub(crate) fn print(diagnosis: &Diagnosis) -> std::io::Result<()> {
    line(styled(BOLD, &diagnosis.target))?;
    if diagnosis.pulls {
        line(format!(
            "  {} {}",
            styled(GOOD, "pulls:"),
            wrapped(&diagnosis.summary, WIDTH, 4)
        ))?;
        return steps(diagnosis);
    }
    let cause = diagnosis.cause.unwrap_or(towline_cause::Cause::Unknown);
    let step = diagnosis
        .step
        .map(|step| format!(", step {step}"))
        .unwrap_or_default();
    line(format!("  image      {}", diagnosis.target.image))?;
    line(format!(
        "  cause      {} ({}{step})",
        styled(BAD.bold(), cause),
        diagnosis.confidence
    ))?;
    line(format!(
        "             {}",
        wrapped(&diagnosis.summary, WIDTH, 13)
    ))?;
    if !diagnosis.alternatives.is_empty() {
        let names: Vec<&str> = diagnosis
            .alternatives
            .iter()
            .map(|cause| cause.name())
            .collect();
        line(format!(
            "  or         {}",
            wrapped(&names.join(", "), WIDTH, 13)
        ))?;
    }
    steps(diagnosis)?;
    evidence(diagnosis)?;
    if let Some(retry) = &diagnosis.retry {
        line(format!(
            "  attempts   {}",
            wrapped(&retry_words(retry), WIDTH, 13)
        ))?;
    }
    for (number, fix) in diagnosis.fixes.iter().enumerate() {
        print_fix(number, fix)?;
    }
    for unread in &diagnosis.unread {
        line(format!("  note       {}", wrapped(unread, WIDTH, 13)))?;
    }
    Ok(())
}

fn steps(diagnosis: &Diagnosis) -> std::io::Result<()> {
    for (number, step) in diagnosis
        .steps
        .iter()
        .filter(|step| step.outcome != StepOutcome::Skipped)
        .enumerate()
    {
        let mark = match step.outcome {
            StepOutcome::Ok => styled(GOOD, "\u{2713}"),
            StepOutcome::Failed => styled(BAD, "\u{2717}"),
            StepOutcome::Skipped => styled(DIM, "-"),
        };
        let label = if number == 0 { "replayed" } else { "" };
        line(format!(
            "  {label:<10} {mark} {:<12} {}",
            step.step.name(),
            wrapped(&step.facts.join("; "), WIDTH, 28)
        ))?;
    }
    Ok(())
}

fn evidence(diagnosis: &Diagnosis) -> std::io::Result<()> {
    // What the summary says already is not said twice.
    let more = diagnosis
        .evidence
        .iter()
        .filter(|evidence| !evidence.fact.contains(&diagnosis.summary));
    for (number, evidence) in more.enumerate() {
        let label = if number == 0 { "evidence" } else { "" };
        let text = format!(
            "{} [{}, {}]",
            evidence.fact, evidence.seen_by, evidence.seen_from
        );
        line(format!("  {label:<10} {}", wrapped(&text, WIDTH, 13)))?;
    }
    Ok(())
}

/// Attempts so far, and whether waiting helps.
fn retry_words(retry: &Retry) -> String {
    let mut words = Vec::new();
    words.extend(retry.attempts.map(|attempts| format!("{attempts} so far")));
    words.extend(
        retry
            .last
            .as_ref()
            .map(|last| format!("last at {}", short(last))),
    );
    words.extend(
        retry
            .next
            .as_ref()
            .map(|next| format!("next from {}", short(next))),
    );
    words.push(
        if retry.waiting_helps {
            "waiting may help"
        } else {
            "waiting does not help"
        }
        .to_owned(),
    );
    words.join(", ")
}

/// The time without fractions of a second.
fn short(time: &str) -> String {
    match (time.find('.'), time.ends_with('Z')) {
        (Some(dot), true) => format!("{}Z", &time[..dot]),
        _ => time.to_owned(),
    }
}

fn print_fix(number: usize, fix: &Fix) -> std::io::Result<()> {
    let label = if number == 0 { "fix" } else { "or" };
    let who: Vec<&str> = fix.who.iter().map(|who| who.name()).collect();
    let by = if who.is_empty() {
        String::new()
    } else {
        format!(" ({})", who.join(" or "))
    };
    line(format!(
        "  {label:<10} {}",
        wrapped(&format!("{}{by}", fix.description), WIDTH, 13)
    ))?;
    // Commands are never wrapped: they are there to be pasted.
    for command in &fix.commands {
        line(format!("             {}", styled(BOLD, command)))?;
    }
    if let Some(confirm) = &fix.confirm {
        line(format!("  confirm    {confirm}"))?;
    }
    Ok(())
}
