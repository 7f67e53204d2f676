//! Numbers of the cache for `/metrics`. The label `upstream` is a prefix of the configuration.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::Cache;
use super::upstream::{Budget, Counts};

/// One line of a metric: labels besides the upstream, and the value.
type Line = (String, u64);

/// A metric: its name, kind, help, and its lines for one upstream.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Counts, Option<&Budget>) -> Vec<Line>,
);

const METRICS: [Metric; 7] = [
    (
        "towline_registry_cache_answers_total",
        "counter",
        "Answers for repositories of an upstream, by what they came from.",
        |counts, _| labelled("from", &counts.answers),
    ),
    (
        "towline_registry_cache_fills_total",
        "counter",
        "Blobs that were fetched from an upstream and kept.",
        |counts, _| vec![(String::new(), counts.fills)],
    ),
    (
        "towline_registry_cache_filled_bytes_total",
        "counter",
        "Their bytes.",
        |counts, _| vec![(String::new(), counts.filled)],
    ),
    (
        "towline_registry_upstream_requests_total",
        "counter",
        "Requests sent to an upstream, by class of the status; none where no answer came.",
        |counts, _| {
            let class = |class: u16| match class {
                0 => "none".to_owned(),
                class => format!("{class}xx"),
            };
            counts
                .requests
                .iter()
                .map(|(key, value)| (format!(",status=\"{}\"", class(*key)), *value))
                .collect()
        },
    ),
    (
        "towline_registry_upstream_failures_total",
        "counter",
        "What could not be had from an upstream, by cause.",
        |counts, _| labelled("cause", &counts.failures),
    ),
    (
        "towline_registry_upstream_budget_limit",
        "gauge",
        "Pulls that an upstream allows in a window, as it said last.",
        |_, budget| one(budget.and_then(|budget| budget.limit)),
    ),
    (
        "towline_registry_upstream_budget_remaining",
        "gauge",
        "Pulls that are left of them, as it said last.",
        |_, budget| one(budget.and_then(|budget| budget.remaining)),
    ),
];

fn one(value: Option<u64>) -> Vec<Line> {
    value
        .map(|value| (String::new(), value))
        .into_iter()
        .collect()
}

fn labelled(label: &str, values: &std::collections::BTreeMap<&'static str, u64>) -> Vec<Line> {
    values
        .iter()
        .map(|(key, value)| (format!(",{label}=\"{key}\""), *value))
        .collect()
}

impl Cache {
    /// The text that Prometheus reads.
    pub(crate) fn numbers(&self) -> String {
        let mut out = String::new();
        if self.sources.is_empty() {
            return out;
        }
        for (name, kind, help, lines) in METRICS {
            // Writing into a String cannot fail.
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
            for source in &self.sources {
                let upstream = source.known.label();
                for (labels, value) in lines(&source.known.counts(), source.known.budget().as_ref())
                {
                    writeln!(out, "{name}{{upstream=\"{upstream}\"{labels}}} {value}").ok();
                }
            }
        }
        for (name, kind, help, value) in self.size_numbers() {
            let name = format!("towline_registry_cache_{name}");
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )
            .ok();
        }
        out
    }

    /// Bytes that are kept of all upstreams, once they were counted, and how many may be.
    pub(crate) fn kept(&self) -> (Option<u64>, Option<u64>) {
        (self.usage.held().kept, self.options.size)
    }

    fn size_numbers(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let usage = &self.usage;
        let mut numbers = vec![
            (
                "evicted_total",
                "counter",
                "Blobs and manifests that made room for others.",
                usage.evicted.load(Relaxed),
            ),
            (
                "evicted_bytes_total",
                "counter",
                "Their bytes.",
                usage.evicted_bytes.load(Relaxed),
            ),
        ];
        if let Some(kept) = usage.held().kept {
            let help = "Bytes that are kept of all upstreams.";
            numbers.push(("bytes", "gauge", help, kept));
        }
        if let Some(size) = self.options.size {
            let help = "Bytes that may be kept of all upstreams.";
            numbers.push(("size_bytes", "gauge", help, size));
        }
        numbers
    }
}
