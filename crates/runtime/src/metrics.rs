//! Counts of pulls, by cause. Labels are bounded: causes and steps of the vocabulary, never names from a registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use towline_cause::Failure;

/// Upper bounds of the histogram of a pull's duration, in seconds.
const BUCKETS: [u64; 8] = [1, 2, 5, 10, 30, 60, 300, 900];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    running: AtomicU64,
    ended: Mutex<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    good: u64,
    /// By cause and step.
    failed: BTreeMap<(&'static str, &'static str), u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    milliseconds: u64,
}

/// A pull that runs; it counts as running until this is dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Metrics);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A pull begins.
    pub(crate) fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// A pull has ended after `took`.
    pub(crate) fn end(&self, took: Duration, failure: Option<&Failure>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => ended.good += 1,
            Some(failure) => {
                let key = (failure.cause().name(), failure.step().name());
                *ended.failed.entry(key).or_default() += 1;
            }
        }
        for (bucket, bound) in ended.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(took <= Duration::from_secs(bound));
        }
        ended.count += 1;
        ended.milliseconds += u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    }

    /// Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = write(&mut out, &ended, self.running.load(Ordering::Relaxed));
        out
    }
}

fn write(out: &mut String, ended: &Ended, running: u64) -> std::fmt::Result {
    writeln!(
        out,
        "# HELP towline_runtime_pulls_in_progress Pulls that run now."
    )?;
    writeln!(out, "# TYPE towline_runtime_pulls_in_progress gauge")?;
    writeln!(out, "towline_runtime_pulls_in_progress {running}")?;
    writeln!(
        out,
        "# HELP towline_runtime_pulls_total Pulls that ended, by cause; the cause of a good one is empty."
    )?;
    writeln!(out, "# TYPE towline_runtime_pulls_total counter")?;
    writeln!(
        out,
        "towline_runtime_pulls_total{{cause=\"\",step=\"\"}} {}",
        ended.good
    )?;
    for ((cause, step), count) in &ended.failed {
        writeln!(
            out,
            "towline_runtime_pulls_total{{cause=\"{cause}\",step=\"{step}\"}} {count}"
        )?;
    }
    writeln!(
        out,
        "# HELP towline_runtime_pull_duration_seconds How long pulls took."
    )?;
    writeln!(
        out,
        "# TYPE towline_runtime_pull_duration_seconds histogram"
    )?;
    for (bucket, bound) in ended.buckets.iter().zip(BUCKETS) {
        writeln!(
            out,
            "towline_runtime_pull_duration_seconds_bucket{{le=\"{bound}\"}} {bucket}"
        )?;
    }
    let (count, ms) = (ended.count, ended.milliseconds);
    writeln!(
        out,
        "towline_runtime_pull_duration_seconds_bucket{{le=\"+Inf\"}} {count}"
    )?;
    writeln!(
        out,
        "towline_runtime_pull_duration_seconds_sum {}.{:03}",
        ms / 1000,
        ms % 1000
    )?;
    writeln!(out, "towline_runtime_pull_duration_seconds_count {count}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_cause::{Cause, Step};

    #[test]
    fn pulls_are_counted_by_cause() {
        let metrics = Metrics::default();
        let running = metrics.begin();
        assert!(
            metrics
                .text()
                .contains("towline_runtime_pulls_in_progress 1\n")
        );
        drop(running);
        let failure = Failure::new(Cause::TagNotFound, Step::Resolve, "no");
        metrics.end(Duration::from_millis(1500), Some(&failure));
        metrics.end(Duration::from_millis(10), None);
        let text = metrics.text();
        for line in [
            "towline_runtime_pulls_in_progress 0",
            "towline_runtime_pulls_total{cause=\"\",step=\"\"} 1",
            "towline_runtime_pulls_total{cause=\"TagNotFound\",step=\"resolve\"} 1",
            "towline_runtime_pull_duration_seconds_bucket{le=\"1\"} 1",
            "towline_runtime_pull_duration_seconds_bucket{le=\"2\"} 2",
            "towline_runtime_pull_duration_seconds_sum 1.510",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
