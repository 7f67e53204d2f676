//! The page of the cache: what each upstream still allows, how it is, and what was fetched from it.

use std::time::{Duration, Instant};

use maud::{Markup, html};

use super::text::{count, size};
use crate::cache::Cache;
use crate::cache::upstream::{Budget, Known};

/// The upstreams, longest prefix first.
pub(super) fn page(cache: &Cache, now: Instant) -> Markup {
    let (kept, most) = cache.kept();
    html! {
        h1 { "Upstreams" }
        p.soft { "Registries whose images are fetched when they are asked for here, and what they said last of how much they still allow." }
        @if let Some(kept) = kept {
            p { "Kept of all of them: " (size(kept)) @if let Some(most) = most { " of at most " (size(most)) } "." }
        }
        table {
            thead {
                tr {
                    th scope="col" { "Upstream" }
                    th scope="col" { "Pulls left" }
                    th scope="col" { "State" }
                    th.n scope="col" { "Requests" }
                    th scope="col" { "Failures" }
                    th scope="col" { "Fetched" }
                }
            }
            tbody { @for source in &cache.sources { (line(&source.known, now)) } }
        }
    }
}

fn line(known: &Known, now: Instant) -> Markup {
    let (options, counts) = (known.options(), known.counts());
    let requests: u64 = counts.requests.values().sum();
    let failures = counts.failures.iter();
    let failures: Vec<String> = failures
        .map(|(cause, times)| format!("{cause} {times}"))
        .collect();
    let fills = usize::try_from(counts.fills).unwrap_or(usize::MAX);
    html! {
        tr {
            td data-label="Upstream" {
                div {
                    (known.name()) @if !options.path.is_empty() { "/" (options.path) }
                    div.soft { @if options.prefix.is_empty() { "as all of this registry" } @else { "as " (options.prefix) "/…" } }
                }
            }
            td data-label="Pulls left" { div { (left(known, now)) } }
            td data-label="State" { div { (state(known, now)) } }
            td.n data-label="Requests" { (requests) }
            td data-label="Failures" { @if failures.is_empty() { "none" } @else { (failures.join(", ")) } }
            td data-label="Fetched" { (count(fills, "blob", "blobs")) ", " (size(counts.filled)) }
        }
    }
}

fn left(known: &Known, now: Instant) -> Markup {
    let Some((budget, age)) = known.budget_and_age(now) else {
        return html! { span.soft { "it does not say" } };
    };
    html! {
        (words_of(&budget))
        div.soft { "said " (time(age)) " ago" }
    }
}

/// `76 of 100 in 6 h`.
fn words_of(budget: &Budget) -> String {
    let mut words = match (budget.remaining, budget.limit) {
        (Some(left), Some(limit)) => format!("{left} of {limit}"),
        (Some(left), None) => left.to_string(),
        (None, Some(limit)) => format!("at most {limit}"),
        (None, None) => "not known".to_owned(),
    };
    if let Some(seconds) = budget.window {
        words = format!("{words} in {}", time(Duration::from_secs(seconds)));
    }
    words
}

fn state(known: &Known, now: Instant) -> Markup {
    let Some((failure, wait)) = known.paused(now) else {
        return html! { "asked" };
    };
    html! {
        "left alone for " (time(wait)) " more"
        div.soft { (failure.cause().name()) ": " (failure.cause().summary()) }
    }
}

/// A time in its largest unit, whole.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "min")] {
        if seconds >= unit {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_words() {
        let budget = |limit, remaining, window| Budget {
            limit,
            remaining,
            window,
            source: None,
        };
        for (budget, expected) in [
            (
                budget(Some(100), Some(76), Some(21_600)),
                "76 of 100 in 6 h",
            ),
            (budget(None, Some(3), None), "3"),
            (budget(Some(9), None, Some(90)), "at most 9 in 1 min"),
            (budget(None, None, Some(5)), "not known in 5 s"),
        ] {
            assert_eq!(words_of(&budget), expected);
        }
    }
}
