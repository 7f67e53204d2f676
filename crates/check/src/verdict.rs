//! Each image replayed once, however often it is named.

use std::collections::BTreeMap;

use serde::Serialize;
use towline_cause::{Cause, CauseName};
use towline_keyring::Candidate;
use towline_oci::Platform;
use towline_probe::{FailureReport, Request};

use crate::Found;

/// The most replays at once.
const AT_ONCE: usize = 8;

/// An image, where it stands, and why it would not pull.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Image and place.
    #[serde(flatten)]
    pub found: Found,
    /// Why not; absent where it pulls, or where the policy is `Never` and no registry is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
    /// Tags near one that is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags_near: Vec<String>,
}

impl Checked {
    /// The cause to act on.
    pub fn cause(&self) -> Option<Cause> {
        self.failure
            .as_ref()
            .map(|failed| CauseName::cause(&failed.cause))
    }
}

/// Replays the pull of every image, each once, with the credentials that `logins` gives for it.
pub async fn check(
    client: &towline_distribution::Client,
    found: Vec<Found>,
    platform: &Platform,
    logins: impl Fn(&str) -> Vec<Candidate>,
) -> Vec<Checked> {
    use futures::StreamExt as _;
    let mut images: Vec<String> = found
        .iter()
        .filter(|found| asks(found))
        .map(|found| found.image.clone())
        .collect();
    images.sort();
    images.dedup();
    let requests = images.into_iter().map(|image| {
        let mut request = Request::new(image.clone());
        request.platform = platform.clone();
        request.candidates = logins(&image);
        async move { (image, towline_probe::run(client, request).await) }
    });
    let reports: BTreeMap<_, _> = futures::stream::iter(requests)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let checked = found.into_iter().map(|found| {
        let report = reports.get(&found.image).filter(|_| asks(&found));
        Checked {
            failure: report.and_then(|report| report.failure.clone()),
            tags_near: report
                .map(|report| report.tags_near.clone())
                .unwrap_or_default(),
            found,
        }
    });
    checked.collect()
}

fn asks(found: &Found) -> bool {
    found.policy.as_deref() != Some("Never")
}
