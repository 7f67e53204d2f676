//! Numbers for `/metrics`. Labels are bounded: methods, status classes and causes, never names.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::{collections::BTreeMap, sync::MutexGuard};

/// Methods that have a label of their own.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    refusals: BTreeMap<&'static str, u64>,
    sent: u64,
    received: u64,
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that ended.
    pub(crate) fn request(
        &self,
        method: &str,
        status: u16,
        sent: u64,
        cause: Option<&'static str>,
    ) {
        let method = METHODS
            .iter()
            .find(|known| **known == method)
            .unwrap_or(&"other");
        let mut counts = self.lock();
        *counts.requests.entry((method, status / 100)).or_default() += 1;
        counts.sent += sent;
        if let Some(cause) = cause {
            *counts.refusals.entry(cause).or_default() += 1;
        }
    }

    /// Counts bytes of uploads.
    pub(crate) fn received(&self, bytes: u64) {
        self.lock().received += bytes;
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, uploads: usize) -> String {
        let counts = self.lock();
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing into a String cannot fail.
            out.write_fmt(text).ok();
            out.push('\n');
        };
        line(format_args!(
            "# HELP towline_registry_requests_total Requests that ended, by method and class of the status."
        ));
        line(format_args!(
            "# TYPE towline_registry_requests_total counter"
        ));
        for ((method, class), count) in &counts.requests {
            line(format_args!(
                "towline_registry_requests_total{{method=\"{method}\",status=\"{class}xx\"}} {count}"
            ));
        }
        line(format_args!(
            "# HELP towline_registry_refusals_total Refusals, by the cause that a pull fails for."
        ));
        line(format_args!(
            "# TYPE towline_registry_refusals_total counter"
        ));
        for (cause, count) in &counts.refusals {
            line(format_args!(
                "towline_registry_refusals_total{{cause=\"{cause}\"}} {count}"
            ));
        }
        line(format_args!(
            "# HELP towline_registry_sent_bytes_total Bytes of answers' bodies."
        ));
        line(format_args!(
            "# TYPE towline_registry_sent_bytes_total counter"
        ));
        line(format_args!(
            "towline_registry_sent_bytes_total {}",
            counts.sent
        ));
        line(format_args!(
            "# HELP towline_registry_received_bytes_total Bytes of uploads."
        ));
        line(format_args!(
            "# TYPE towline_registry_received_bytes_total counter"
        ));
        line(format_args!(
            "towline_registry_received_bytes_total {}",
            counts.received
        ));
        line(format_args!(
            "# HELP towline_registry_uploads_open Uploads that are open."
        ));
        line(format_args!("# TYPE towline_registry_uploads_open gauge"));
        line(format_args!("towline_registry_uploads_open {uploads}"));
        out
    }
}
