//! Counters of the node agent, in Prometheus' text form. Labels are bounded: causes and steps of the closed vocabulary.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use towline_cause::{Cause, Step};

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    failures: BTreeMap<(&'static str, &'static str), u64>,
    pulls: u64,
    pull_seconds: f64,
    syncs: u64,
    sync_errors: u64,
    collected: BTreeMap<&'static str, u64>,
}

impl Metrics {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image could not be had.
    pub(crate) fn failed(&self, cause: Cause, step: Option<Step>) {
        let step = step.map_or("unknown", Step::name);
        *self
            .counts()
            .failures
            .entry((cause.name(), step))
            .or_default() += 1;
    }

    /// An image was pulled.
    pub(crate) fn pulled(&self, took: Duration) {
        let mut counts = self.counts();
        counts.pulls += 1;
        counts.pull_seconds += took.as_secs_f64();
    }

    /// An image that nobody uses was removed: `age` or `space`, in Kubernetes' words.
    pub(crate) fn collected(&self, reason: &'static str) {
        *self.counts().collected.entry(reason).or_default() += 1;
    }

    /// A pod was synced.
    pub(crate) fn synced(&self, error: bool) {
        let mut counts = self.counts();
        counts.syncs += 1;
        counts.sync_errors += u64::from(error);
    }

    /// The text form. `causes` adds the counter by cause, which Kubernetes does not have.
    pub(crate) fn render(&self, pods: usize, causes: bool) -> String {
        let counts = self.counts();
        let plain = [
            (
                "kubelet_running_pods",
                "gauge",
                "Pods that this node runs.",
                pods.to_string(),
            ),
            (
                "towline_kubelet_pod_syncs_total",
                "counter",
                "Syncs of pods.",
                counts.syncs.to_string(),
            ),
            (
                "towline_kubelet_pod_sync_errors_total",
                "counter",
                "Syncs of pods that ended with an error.",
                counts.sync_errors.to_string(),
            ),
            (
                "towline_kubelet_image_pulls_total",
                "counter",
                "Pulls that succeeded.",
                counts.pulls.to_string(),
            ),
            (
                "towline_kubelet_image_pull_seconds_total",
                "counter",
                "Time in pulls that succeeded, waiting included.",
                format!("{:.3}", counts.pull_seconds),
            ),
        ];
        let mut lines: Vec<String> = plain
            .into_iter()
            .flat_map(|(name, kind, help, value)| {
                [
                    format!("# HELP {name} {help}"),
                    format!("# TYPE {name} {kind}"),
                    format!("{name} {value}"),
                ]
            })
            .collect();
        let name = "kubelet_image_garbage_collected_total";
        lines.push(format!(
            "# HELP {name} Images that nobody used and that were removed, by reason: age or space."
        ));
        lines.push(format!("# TYPE {name} counter"));
        let collected = counts.collected.iter();
        lines.extend(
            collected.map(|(reason, count)| format!("{name}{{reason=\"{reason}\"}} {count}")),
        );
        if causes {
            let name = "towline_kubelet_image_pull_failures_total";
            lines.push(format!(
                "# HELP {name} Images that could not be had, by cause and step."
            ));
            lines.push(format!("# TYPE {name} counter"));
            lines.extend(counts.failures.iter().map(|((cause, step), count)| {
                format!("{name}{{cause=\"{cause}\",step=\"{step}\"}} {count}")
            }));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_images_are_counted_by_reason() {
        let metrics = Metrics::default();
        let name = "kubelet_image_garbage_collected_total";
        assert!(!metrics.render(0, true).contains(&format!("{name}{{")));
        for reason in ["age", "space", "age"] {
            metrics.collected(reason);
        }
        let text = metrics.render(0, false);
        let want = format!(
            "# TYPE {name} counter\n{name}{{reason=\"age\"}} 2\n{name}{{reason=\"space\"}} 1\n"
        );
        assert!(text.contains(&want), "{text}");
    }
}
