//! What a replay found: serialisable, versioned, without secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use towline_cause::{Cause, CauseName, Failure, Step};
use towline_distribution::Fact;
use towline_oci::{Digest, Platform};

use crate::limit::RateLimit;

/// The version of [`Report`] in JSON.
pub const API_VERSION: &str = "towline.dev/v1";
/// The kind of [`Report`] in JSON.
pub const KIND: &str = "ProbeReport";

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It went through.
    Ok,
    /// The pull would stop here.
    Failed,
    /// It was not reached, or not asked for.
    Skipped,
}

/// One step of the replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// One line for people.
    pub text: String,
    /// The same as keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Milliseconds.
    pub millis: u64,
}

/// A failure as a report holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureReport {
    /// Why.
    pub cause: CauseName,
    /// Where.
    pub step: Step,
    /// Scheme, host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The failure's own words.
    pub detail: String,
    /// The words of each error underneath, in one line.
    pub chain: String,
    /// Causes that the evidence leaves open as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<CauseName>,
    /// How long the other side asked to wait, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl FailureReport {
    /// The cause to act on.
    pub fn cause(&self) -> Cause {
        self.cause.cause()
    }
}

impl From<&Failure> for FailureReport {
    fn from(failure: &Failure) -> Self {
        Self {
            cause: failure.cause().into(),
            step: failure.step(),
            endpoint: failure.endpoint().map(str::to_owned),
            detail: failure.detail().to_owned(),
            chain: failure.chain(),
            alternatives: failure
                .alternatives()
                .iter()
                .map(|&cause| cause.into())
                .collect(),
            retry_after: failure.wait().map(|wait| wait.as_secs()),
        }
    }
}

/// One credential that was offered, and what the registry said to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// `anonymous`, `user bob`, `an identity token`, ...: never the value.
    pub credential: String,
    /// From where: `secret shop/regcred, entry "ghcr.io"`, ...
    pub origin: String,
    /// Whether it may pull.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
}

/// Two clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    /// Where the replay ran, RFC 3339.
    pub here: String,
    /// What the registry said, RFC 3339, to the second.
    pub registry: String,
    /// Seconds by which the first is ahead of the second; negative where it is behind.
    pub ahead: i64,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// The image as asked for.
    pub image: String,
    /// The image written out in full, where it parses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The platform asked for.
    pub platform: Platform,
    /// The steps in order.
    pub steps: Vec<StepReport>,
    /// Why the pull would fail; absent where it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
    /// Every credential that was offered, in order.
    #[serde(default)]
    pub tried: Vec<Tried>,
    /// Whether it works without a credential; absent where that was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// Tags that are like the missing one, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags_near: Vec<String>,
    /// The only tag that differs from the missing one in nothing but characters that look alike, where all tags were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_alike: Option<String>,
    /// Repositories of the registry that are like the missing one, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories_near: Vec<String>,
    /// Platforms that the image is built for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Digest that the reference resolves to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Sum of the compressed sizes of config and layers, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The rate limit that the registry names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// What the registry says of the time, where it said anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// Everything that the client saw, in order.
    #[serde(default)]
    pub facts: Vec<Fact>,
}

impl Report {
    /// Whether the pull would go through.
    pub fn would_pull(&self) -> bool {
        self.failure.is_none()
    }
}
