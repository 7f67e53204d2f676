//! Pods as `up` shows them: STATUS as kubectl prints it, the attempt, the seconds to the next one, the cause.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use towline_pod::columns::pod_columns;
use towline_pod::pulls::{ANNOTATION, ContainerPull, Pulls};

use crate::table;

/// One pod, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// `namespace/name`.
    pub(crate) pod: String,
    /// READY.
    pub(crate) ready: String,
    /// STATUS.
    pub(crate) status: String,
    /// Attempts so far, where a pull is not over.
    pub(crate) attempt: Option<u32>,
    /// Earliest next attempt.
    pub(crate) next: Option<Timestamp>,
    /// The cause.
    pub(crate) cause: Option<String>,
}

impl Row {
    /// What is known of a pod now.
    pub(crate) fn of(pod: &Pod, now: Timestamp) -> Self {
        let columns = pod_columns(pod, now);
        let pull = failing(pod);
        Self {
            pod: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
            ready: columns.ready,
            status: columns.status,
            attempt: pull.as_ref().map(|pull| pull.attempt),
            next: pull.as_ref().and_then(|pull| pull.next_attempt),
            cause: pull
                .and_then(|pull| pull.cause)
                .map(|cause| cause.to_string()),
        }
    }

    /// One line for a pipe.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{} {} {}", self.pod, self.ready, self.status);
        if let Some(cause) = &self.cause {
            line.push_str(" cause=");
            line.push_str(cause);
        }
        if let Some(attempt) = self.attempt {
            line.push_str(" attempt=");
            line.push_str(&attempt.to_string());
        }
        line
    }
}

/// The first container whose pull failed.
fn failing(pod: &Pod) -> Option<ContainerPull> {
    let text = pod.annotations().get(ANNOTATION)?;
    let pulls = Pulls::parse(text).ok()?;
    pulls
        .containers
        .into_iter()
        .find(|pull| pull.cause.is_some())
}

/// The table for a terminal.
pub(crate) fn lines(rows: &BTreeMap<String, Row>, now: Timestamp) -> Vec<String> {
    let header = ["Pod", "Ready", "Status", "Attempt", "Next", "Cause"].map(str::to_owned);
    let cells = rows.values().map(|row| {
        let wait = row
            .next
            .map(|next| (next.as_second() - now.as_second()).max(0));
        vec![
            row.pod.clone(),
            row.ready.clone(),
            row.status.clone(),
            row.attempt
                .map(|attempt| attempt.to_string())
                .unwrap_or_default(),
            wait.map(|seconds| format!("{seconds}s"))
                .unwrap_or_default(),
            row.cause.clone().unwrap_or_default(),
        ]
    });
    table::layout(&header, &cells.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_cause::Cause;

    #[test]
    fn a_failing_pull_is_shown_with_attempt_and_cause() {
        let mut pull = ContainerPull::new("app", "x:y");
        pull.cause = Some(Cause::TagNotFound.into());
        pull.attempt = 3;
        pull.next_attempt = Some(Timestamp::from_second(110).unwrap());
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("shop".into());
        pod.metadata.annotations = Some(BTreeMap::from([(
            ANNOTATION.to_owned(),
            Pulls::new(vec![pull]).render(),
        )]));
        let now = Timestamp::from_second(100).unwrap();
        let row = Row::of(&pod, now);
        assert!(
            row.line().ends_with("cause=TagNotFound attempt=3"),
            "{}",
            row.line()
        );
        let lines = lines(&BTreeMap::from([("web".to_owned(), row)]), now);
        assert!(
            lines[1].ends_with("3         10s    TagNotFound"),
            "{lines:?}"
        );
    }
}
