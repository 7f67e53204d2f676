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
        overview(scan)?;
    }
    for (number, diagnosis) in scan.items.iter().enumerate() {
        if number > 0 || !single {
            line("")?;
        }
        print(diagnosis)?;
    }
    Ok(())
}

/// A line for each of several answers, so that the whole is seen before its parts.
fn overview(scan: &Scan) -> std::io::Result<()> {
    if scan.items.len() < 2 {
        return Ok(());
    }
    line("")?;
    let width = scan
        .items
        .iter()
        .map(|one| pods(one).len())
        .max()
        .unwrap_or(0);
    for one in &scan.items {
        let cause = match one.cause {
            _ if one.pulls => "pulls",
            Some(cause) => cause.name(),
            None => towline_cause::Cause::Unknown.name(),
        };
        let named = one.affected.as_ref().map_or_else(
            || one.target.to_string(),
            |affected| match limited(one) {
                Some(limit) => limit,
                None => names(affected),
            },
        );
        line(format!(
            "  {:>width$}  {} {}",
            pods(one),
            styled(if one.pulls { GOOD } else { BAD }, format!("{cause:<24}")),
            wrapped(&named, WIDTH, width + 29)
        ))?;
    }
    Ok(())
}

/// How many pods an answer is for; of workloads without pods there are none.
fn pods(diagnosis: &Diagnosis) -> String {
    let affected = diagnosis.affected.as_ref();
    many(affected.map_or(1, |affected| affected.count), "pod")
}

/// `docker.io rate limit for 203.0.113.7, resets 14:05Z`, where that is the cause and the registry told it.
fn limited(diagnosis: &Diagnosis) -> Option<String> {
    let limit = diagnosis.rate_limit.as_ref()?;
    let mut words = format!("{} rate limit", limit.registry);
    if let Some(charged) = &limit.charged {
        let whom = charged.strip_prefix("address ").unwrap_or(charged);
        words = format!("{words} for {whom}");
    }
    if let Some(resets) = &limit.resets {
        words = format!("{words}, resets {}", clock(resets, jiff::Timestamp::now()));
    }
    Some(words)
}

/// The hour of a time that comes within a day; else all of it.
fn clock(time: &str, now: jiff::Timestamp) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else {
        return time.to_owned();
    };
    let ahead = then.as_second() - now.as_second();
    if (0..86_400).contains(&ahead) {
        then.strftime("%H:%MZ").to_string()
    } else {
        time.to_owned()
    }
}

/// `namespace shop: 12 pods; 5 do not pull, 1 is undecided`.
pub(super) fn headline(scan: &Scan) -> String {
    if scan.pods == 0 && scan.items.is_empty() {
        return format!("{}: no pods", scan.scope);
    }
    let pods = many(scan.pods, "pod");
    let open = match (scan.broken, scan.undecided) {
        (0, 0) => "none waits for an image that does not pull".to_owned(),
        (broken, 0) => format!("{broken} cannot pull"),
        (0, undecided) => format!("{undecided} undecided"),
        (broken, undecided) => format!("{broken} cannot pull, {undecided} undecided"),
    };
    let wrong = || scan.items.iter().filter(|one| !one.pulls);
    let mut words = format!("{}: {pods}; {open}", scan.scope);
    // No pod is counted for a workload that has none.
    let without: usize = wrong().map(workloads_without_pods).sum();
    if without > 0 {
        words = format!("{words}; {} without pods", many(without, "workload"));
    }
    match wrong().count() {
        0 => words,
        causes => format!("{words}; {}", many(causes, "cause")),
    }
}

fn workloads_without_pods(diagnosis: &Diagnosis) -> usize {
    match &diagnosis.affected {
        Some(affected) if affected.count == 0 => affected.workloads.len(),
        _ => 0,
    }
}

fn many(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// What an answer is about: one object, or how many pods of what.
pub(super) fn title(diagnosis: &Diagnosis) -> String {
    match &diagnosis.affected {
        Some(affected) if affected.count > 1 || affected.workloads.len() > 1 => {
            let named = limited(diagnosis).unwrap_or_else(|| names(affected));
            format!("{}: {named}", of_many(affected))
        }
        _ => diagnosis.target.to_string(),
    }
}

fn of_many(affected: &Affected) -> String {
    if affected.count == 0 {
        return format!(
            "{} without pods",
            many(affected.workloads.len(), "workload")
        );
    }
    let pods = many(affected.count, "pod");
    if affected.nodes.is_empty() {
        pods
    } else {
        format!("{pods} on {}", many(affected.nodes.len(), "node"))
    }
}

/// What made the pods, and the pods that nothing made.
fn names(affected: &Affected) -> String {
    let alone = affected.alone.iter().map(|pod| match pod.split_once('/') {
        Some(("", name)) => format!("pod/{name}"),
        Some((namespace, name)) => format!("{namespace}/pod/{name}"),
        None => pod.clone(),
    });
    let names: Vec<String> = affected.workloads.iter().cloned().chain(alone).collect();
    let named: Vec<&str> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
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
            wrapped(&attempts(diagnosis, retry), WIDTH, 13)
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
pub(super) fn attempts(diagnosis: &Diagnosis, retry: &Retry) -> String {
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
    let resets = diagnosis.rate_limit.as_ref();
    let resets = resets.and_then(|limit| limit.resets.as_deref());
    words.push(match resets {
        Some(resets) => format!("waiting helps from {}", short(resets)),
        None if retry.waiting_helps => "waiting may help".to_owned(),
        None => "waiting does not help".to_owned(),
    });
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
    // What the commands make known comes before them.
    for file in &fix.files {
        line(format!("             in {}:", styled(BOLD, &file.path)))?;
        for one in file.lines.lines() {
            line(format!("               {one}").trim_end())?;
        }
    }
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
    fn a_limit_says_for_whom_and_until_when() {
        let now = "2026-11-30T13:00:00Z".parse().unwrap();
        assert_eq!(clock("2026-11-30T14:05:00Z", now), "14:05Z");
        assert_eq!(clock("2026-12-02T14:05:00Z", now), "2026-12-02T14:05:00Z");
        assert_eq!(clock("soon", now), "soon");
        let mut one = Diagnosis::about(towline_explain::Target::image("nginx"));
        one.rate_limit = Some(towline_explain::Limit {
            registry: "docker.io".to_owned(),
            charged: Some("address 203.0.113.7".to_owned()),
            remaining: Some(0),
            resets: Some("2001-01-01T00:00:00Z".to_owned()),
        });
        one.affected = Some(Affected {
            count: 42,
            nodes: ["a", "b", "c"].map(str::to_owned).into(),
            ..Affected::default()
        });
        assert_eq!(
            title(&one),
            "42 pods on 3 nodes: docker.io rate limit for 203.0.113.7, resets 2001-01-01T00:00:00Z"
        );
    }

    #[test]
    fn a_headline_tells_of_workloads_without_pods() {
        let without = Diagnosis {
            cause: Some(towline_cause::Cause::AdmissionDenied),
            affected: Some(Affected {
                workloads: vec!["shop/deployment/web".to_owned()],
                ..Affected::default()
            }),
            ..Diagnosis::about(towline_explain::Target::image("a"))
        };
        let scan = Scan {
            pods: 7,
            ..Scan::of("all namespaces", vec![without])
        };
        assert_eq!(
            headline(&scan),
            "all namespaces: 7 pods; none waits for an image that does not pull; 1 workload without pods; 1 cause"
        );
    }

    #[test]
    fn a_title_hides_no_pod_that_nothing_made() {
        let affected = Affected {
            count: 4,
            workloads: vec!["shop/deployment/web".to_owned()],
            alone: vec!["shop/one".to_owned(), "/two".to_owned()],
            ..Affected::default()
        };
        let one = Diagnosis {
            affected: Some(affected),
            ..Diagnosis::about(towline_explain::Target::image("x"))
        };
        assert_eq!(
            title(&one),
            "4 pods: shop/deployment/web, shop/pod/one, pod/two"
        );
    }

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
