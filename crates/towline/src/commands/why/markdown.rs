//! A diagnosis for a ticket: Markdown that any tracker shows.

use towline_explain::scan::Scan;
use towline_explain::{Diagnosis, Fix, StepOutcome};

use super::text::{attempts, headline, title};
use crate::output::line;

/// Prints every answer, one section each.
pub(super) fn print(scan: &Scan, single: bool) -> std::io::Result<()> {
    if !single || scan.items.is_empty() {
        line(format!("# {}\n", plain(&headline(scan))))?;
        if scan.items.len() > 1 {
            scan.items.iter().try_for_each(|one| {
                let cause = one.cause.map_or("pulls", towline_cause::Cause::name);
                line(format!("- {cause}: {}", plain(&title(one))))
            })?;
            line("")?;
        }
    }
    scan.items.iter().try_for_each(one)
}

fn one(diagnosis: &Diagnosis) -> std::io::Result<()> {
    let name = plain(&title(diagnosis));
    if diagnosis.pulls {
        line(format!(
            "## {name}: pulls\n\n{}\n",
            plain(&diagnosis.summary)
        ))?;
        return steps(diagnosis);
    }
    let cause = diagnosis.cause.unwrap_or(towline_cause::Cause::Unknown);
    line(format!(
        "## {name}: {cause}\n\n{}\n",
        plain(&diagnosis.summary)
    ))?;
    line("| | |\n| --- | --- |")?;
    let row = |name: &str, value: &str| line(format!("| {name} | {value} |"));
    row("image", &code(&diagnosis.target.image))?;
    row("confidence", diagnosis.confidence.name())?;
    if let Some(step) = diagnosis.step {
        row("step", step.name())?;
    }
    if !diagnosis.alternatives.is_empty() {
        let open = diagnosis.alternatives.iter().map(|cause| cause.name());
        row("or", &open.collect::<Vec<_>>().join(", "))?;
    }
    if let Some(affected) = &diagnosis.affected {
        row("pods", &affected.count.to_string())?;
        row("nodes", &codes(&affected.nodes))?;
        row("workloads", &codes(&affected.workloads))?;
        if !affected.alone.is_empty() {
            row("pods that nothing made", &codes(&affected.alone))?;
        }
    }
    for sight in &diagnosis.seen {
        row(
            &format!("from {}", plain(&sight.seen_from)),
            &sight.outcome(),
        )?;
    }
    if let Some(retry) = &diagnosis.retry {
        row("attempts", &plain(&attempts(diagnosis, retry)))?;
    }
    line("")?;
    steps(diagnosis)?;
    evidence(diagnosis)?;
    diagnosis.fixes.iter().try_for_each(fix)?;
    for decider in &diagnosis.decided_by {
        line(format!("**To decide**: {}\n", plain(&decider.description)))?;
        if let Some(command) = &decider.command {
            line(format!("```sh\n{command}\n```\n"))?;
        }
    }
    for unread in &diagnosis.unread {
        line(format!("> Note: {}\n", plain(unread)))?;
    }
    Ok(())
}

fn steps(diagnosis: &Diagnosis) -> std::io::Result<()> {
    let seen: Vec<_> = diagnosis
        .steps
        .iter()
        .filter(|step| step.outcome != StepOutcome::Skipped)
        .collect();
    if seen.is_empty() {
        return Ok(());
    }
    line("**The pull, replayed**\n")?;
    for step in seen {
        let mark = match step.outcome {
            StepOutcome::Ok => "\u{2713}",
            StepOutcome::Failed => "\u{2717}",
            StepOutcome::Skipped => "-",
        };
        line(format!(
            "- {mark} {}: {}",
            step.step.name(),
            plain(&step.facts.join("; "))
        ))?;
    }
    line("")
}

fn evidence(diagnosis: &Diagnosis) -> std::io::Result<()> {
    if diagnosis.evidence.is_empty() {
        return Ok(());
    }
    line("**Evidence**\n")?;
    for one in &diagnosis.evidence {
        let (fact, by, from) = (plain(&one.fact), plain(&one.seen_by), plain(&one.seen_from));
        line(format!("- {fact} ({by}, {from})"))?;
    }
    line("")
}

fn fix(fix: &Fix) -> std::io::Result<()> {
    let who: Vec<&str> = fix.who.iter().map(|who| who.name()).collect();
    let by = if who.is_empty() {
        String::new()
    } else {
        format!(" ({})", who.join(" or "))
    };
    line(format!("**Fix**: {}{by}\n", plain(&fix.description)))?;
    for file in &fix.files {
        let lines = file.lines.replace("```", "");
        line(format!("In {}:\n\n```text\n{lines}```\n", code(&file.path)))?;
    }
    if !fix.commands.is_empty() {
        line(format!("```sh\n{}\n```\n", fix.commands.join("\n")))?;
    }
    if let Some(confirm) = &fix.confirm {
        line(format!("Confirm with {}.\n", code(confirm)))?;
    }
    Ok(())
}

fn codes(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| code(name)).collect();
    if shown.is_empty() {
        "-".to_owned()
    } else {
        shown.join(", ")
    }
}

fn code(text: &str) -> String {
    format!(
        "`{}`",
        text.replace(['`', '\n', '\r'], " ").replace('|', "\\|")
    )
}

/// Text without what Markdown or HTML would take for its own.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => plain.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => {
                plain.push('\\');
                plain.push(c);
            }
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_stays_text() {
        assert_eq!(plain("a|b <img>\n*x*"), r"a\|b \<img\> \*x\*");
        assert_eq!(code("a`b|c"), r"`a b\|c`");
    }
}
