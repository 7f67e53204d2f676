//! A diagnosis for people: the cause, the steps with ticks and crosses, the evidence, the fix. Fits 80 columns where words allow.

use towline_explain::scan::Scan;
use towline_explain::{Affected, Diagnosis, Fix, Retry, StepOutcome};

use crate::output::{BAD, BOLD, DIM, GOOD, line, styled, wrapped};

const WIDTH: usize = 80;

/// The most workloads that a title names.
const MOST_NAMED: usize = 3;

/// Prints every answer; what was seen in all first, unless one thing was asked about.
pub(super) fn print_scan(scan: &Scan, single: bool) -> std::io::Result<()> {
    if !single || scan.items.is_empty() {
        line(wrapped(&headline(scan), WIDTH, 0))?;
    }
    for (number, diagnosis) in scan.items.iter().enumerate() {
        if number > 0 || !single {
            line("")?;
        }
        print(diagnosis)?;
    }
    Ok(())
}

/// `namespace shop: 12 pods; 5 do not pull, 1 is undecided`.
pub(super) fn headline(scan: &Scan) -> String {
    if scan.pods == 0 && scan.items.is_empty() {
        return format!("{}: no pods", scan.scope);
    }
    let pods = many(scan.pods, "pod");
    let open = match (scan.broken, scan.undecided) {
        (0, 0) => {
            return format!(
                "{}: {pods}; none waits for an image that does not pull",
                scan.scope
            );
        }
        (broken, 0) => format!("{broken} cannot pull"),
        (0, undecided) => format!("{undecided} undecided"),
        (broken, undecided) => format!("{broken} cannot pull, {undecided} undecided"),
    };
    let causes = many(scan.items.iter().filter(|one| !one.pulls).count(), "cause");
    format!("{}: {pods}; {open}; {causes}", scan.scope)
}

fn many(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// What an answer is about: one object, or how many pods of what.
pub(super) fn title(diagnosis: &Diagnosis) -> String {
    match &diagnosis.affected {
        Some(affected) if affected.count > 1 => of_many(affected),
        _ => diagnosis.target.to_string(),
    }
}

fn of_many(affected: &Affected) -> String {
    let mut title = many(affected.count, "pod");
    if !affected.nodes.is_empty() {
        title = format!("{title} on {}", many(affected.nodes.len(), "node"));
    }
    let names = if affected.workloads.is_empty() {
        &affected.pods
    } else {
        &affected.workloads
    };
    let named: Vec<&str> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{title}: {}{more}", named.join(", "))
}

/// Prints a diagnosis.
pub(crate) fn print(diagnosis: &Diagnosis) -> std::io::Result<()> {
    line(styled(BOLD, wrapped(&title(diagnosis), WIDTH, 2)))?;
    if diagnosis.pulls {
        line(format!(
            "  {} {}",
            styled(GOOD, "pulls:"),
            wrapped(&diagnosis.summary, WIDTH, 4)
        ))?;
        seen(diagnosis)?;
        steps(diagnosis)?;
        return notes(diagnosis);
    }
    let cause = diagnosis.cause.unwrap_or(towline_cause::Cause::Unknown);
    let step = diagnosis
        .step
        .map(|step| format!(", step {step}"))
        .unwrap_or_default();
    images(diagnosis)?;
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
    seen(diagnosis)?;
    steps(diagnosis)?;
    evidence(diagnosis)?;
    if let Some(retry) = &diagnosis.retry {
        line(format!(
            "  attempts   {}",
            wrapped(&attempts(retry), WIDTH, 13)
        ))?;
    }
    for (number, fix) in diagnosis.fixes.iter().enumerate() {
        print_fix(number, fix)?;
    }
    for decider in &diagnosis.decided_by {
        let words = wrapped(&decider.description, WIDTH, 13);
        line(format!("  to decide  {words}"))?;
        if let Some(command) = &decider.command {
            line(format!("             {}", styled(BOLD, command)))?;
        }
    }
    notes(diagnosis)
}

fn notes(diagnosis: &Diagnosis) -> std::io::Result<()> {
    for unread in &diagnosis.unread {
        line(format!("  note       {}", wrapped(unread, WIDTH, 13)))?;
    }
    Ok(())
}

/// How the pull goes from each place, where that is more than one.
fn seen(diagnosis: &Diagnosis) -> std::io::Result<()> {
    for (number, sight) in diagnosis.seen.iter().enumerate() {
        let label = if number == 0 { "seen from" } else { "" };
        let text = format!("{}: {}", sight.seen_from, sight.outcome());
        line(format!("  {label:<10} {}", wrapped(&text, WIDTH, 13)))?;
    }
    Ok(())
}

fn images(diagnosis: &Diagnosis) -> std::io::Result<()> {
    // An image that no pod names is the title already.
    if title(diagnosis) != format!("image {}", diagnosis.target.image) {
        line(format!("  image      {}", diagnosis.target.image))?;
    }
    let images = diagnosis
        .affected
        .as_ref()
        .map_or(0, |affected| affected.images.len());
    if images > 1 {
        line(format!("             and {} more", images - 1))?;
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
            wrapped(&short_digests(&step.facts.join("; ")), WIDTH, 28)
        ))?;
    }
    Ok(())
}

/// Digests by their first digits: whole ones are in the JSON.
fn short_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let kept = if hex == 64 { &part[..12] } else { &part[..hex] };
        short.push_str("sha256:");
        short.push_str(kept);
        short.push_str(&part[hex..]);
    }
    short
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
pub(super) fn attempts(retry: &Retry) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_shortened_and_nothing_else() {
        let digest = format!("v1 is sha256:{} now", "ab".repeat(32));
        assert_eq!(short_digests(&digest), "v1 is sha256:abababababab now");
        assert_eq!(
            short_digests("sha256:abc is no digest"),
            "sha256:abc is no digest"
        );
        assert_eq!(short_digests("\u{e9}"), "\u{e9}");
    }
}
