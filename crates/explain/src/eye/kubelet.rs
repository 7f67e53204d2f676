//! Towline's kubelet asked, through the API server.

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use towline_probe::Report;

use super::{MAX_ANSWER, Wanted, report};

/// Most bytes of a refusal that are told.
const MAX_WORDS: usize = 300;

pub(super) async fn ask(
    client: &Client,
    node: &str,
    wanted: &Wanted<'_>,
) -> Result<Report, String> {
    let ask = serde_json::json!({
        "image": wanted.image,
        "namespace": wanted.pod.map(|_| wanted.namespace).unwrap_or_default(),
        "pod": wanted.pod.unwrap_or_default(),
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/v1/nodes/{node}/proxy/towline/replay"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(ask.to_string().into_bytes()))
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| format!("the API server cannot be asked: {error}"))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?;
    let bytes = body.to_bytes();
    if status == StatusCode::OK {
        return report(&bytes);
    }
    let said = said(&bytes);
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("this takes the right to create nodes/proxy: {said}")
        }
        StatusCode::NOT_FOUND if said.starts_with("pod ") => said,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            format!(
                "no kubelet of Towline answers there ({status}: {said}); --with-pod IMAGE looks from there by a pod"
            )
        }
        _ => format!("{status}: {said}"),
    })
}

/// The words of a refusal: a Status of the API, or text.
fn said(bytes: &[u8]) -> String {
    let status = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let message = status
        .as_ref()
        .and_then(|status| status["message"].as_str());
    let text = String::from_utf8_lossy(bytes);
    let words = message.unwrap_or(&text).trim();
    words.chars().take(MAX_WORDS).collect()
}
