//! The replay itself.

use towline_distribution::Client;

use crate::report::{API_VERSION, KIND, Report};
use crate::request::Request;

/// Replays one pull. Never fails: what goes wrong is the report.
#[expect(clippy::unused_async, reason = "the signature comes first")]
pub async fn run(client: &Client, request: Request) -> Report {
    let _ = client;
    Report {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        image: request.image,
        reference: None,
        platform: request.platform,
        steps: Vec::new(),
        failure: None,
        tried: Vec::new(),
        anonymous: None,
        tags_near: Vec::new(),
        platforms: Vec::new(),
        digest: None,
        size: None,
        rate_limit: None,
        facts: Vec::new(),
    }
}
