//! Counters, written as Prometheus text. Labels are verbs, resources and status codes that this server knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 8] = [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// The server's metrics.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), u64>>,
    latency: Mutex<BTreeMap<String, Histogram>>,
    watches: AtomicI64,
}

/// Counts a watch while it is open.
#[derive(Debug)]
pub(crate) struct OpenWatch<'a>(&'a Metrics);

impl Drop for OpenWatch<'_> {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answered request. `resource` is a known plural or empty.
    pub(crate) fn answered(&self, verb: &str, resource: &'static str, code: u16, took: Duration) {
        let mut requests = self
            .requests
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *requests
            .entry((verb.to_owned(), resource, code))
            .or_default() += 1;
        drop(requests);
        let seconds = took.as_secs_f64();
        let mut latency = self
            .latency
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let histogram = latency.entry(verb.to_owned()).or_default();
        histogram.count += 1;
        histogram.sum += seconds;
        for (bound, bucket) in BUCKETS.iter().zip(&mut histogram.buckets) {
            if seconds <= *bound {
                *bucket += 1;
            }
        }
    }

    pub(crate) fn watch(&self) -> OpenWatch<'_> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        OpenWatch(self)
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self, revision: u64) -> String {
        let mut out = String::from("# TYPE apiserver_request_total counter\n");
        for ((verb, resource, code), count) in &*self
            .requests
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            writeln!(out, "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {count}")
                .ok();
        }
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        for (verb, histogram) in &*self
            .latency
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            let name = "apiserver_request_duration_seconds";
            for (bound, bucket) in BUCKETS.iter().zip(&histogram.buckets) {
                writeln!(
                    out,
                    "{name}_bucket{{verb=\"{verb}\",le=\"{bound}\"}} {bucket}"
                )
                .ok();
            }
            writeln!(
                out,
                "{name}_bucket{{verb=\"{verb}\",le=\"+Inf\"}} {}",
                histogram.count
            )
            .ok();
            writeln!(out, "{name}_sum{{verb=\"{verb}\"}} {}", histogram.sum).ok();
            writeln!(out, "{name}_count{{verb=\"{verb}\"}} {}", histogram.count).ok();
        }
        writeln!(out, "# TYPE apiserver_longrunning_requests gauge").ok();
        writeln!(
            out,
            "apiserver_longrunning_requests{{verb=\"watch\"}} {}",
            self.watches.load(Ordering::Relaxed)
        )
        .ok();
        writeln!(
            out,
            "# TYPE apiserver_storage_revision gauge\napiserver_storage_revision {revision}"
        )
        .ok();
        out
    }
}
