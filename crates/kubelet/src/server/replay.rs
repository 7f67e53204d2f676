//! `POST /towline/replay`: the pull of a pod's image replayed here, with the logins that this agent itself finds for it.
//!
//! The caller names a pod of this node and one of its images, or an image alone, which is then asked for without a login. No secret
//! travels: the agent reads the pod's secrets as it does for its own pulls, and the report says of a login only whose it is.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use towline_oci::Reference;

use super::Shared;
use crate::replay::{Replay, Wanted};
use crate::sync::pull_secrets;
use crate::view;

/// Where it is served.
pub(crate) const PATH: &str = "/towline/replay";
/// Bytes of a request; it holds three names.
const MAX_REQUEST: usize = 16 * 1024;
/// Bytes of a report; that of an image with 200 layers has some 100 KiB.
const MAX_REPORT: usize = 2 * 1024 * 1024;
/// Replays at one time: the node has its own pulls to make.
const AT_ONCE: usize = 4;

/// What replays, and how many may.
pub(crate) struct Replays {
    replay: Option<Replay>,
    turns: Semaphore,
}

impl std::fmt::Debug for Replays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replays")
    }
}

impl Replays {
    pub(crate) fn new(replay: Option<Replay>) -> Self {
        Self {
            replay,
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Ask {
    image: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    pod: String,
}

pub(super) async fn serve(State(shared): State<Shared>, body: Bytes) -> Response {
    match Box::pin(answer(&shared, &body)).await {
        Ok(report) => Json(report).into_response(),
        Err((status, why)) => (status, why).into_response(),
    }
}

type Refusal = (StatusCode, String);

async fn answer(shared: &Shared, body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let replays = &shared.replays;
    let Some(replay) = &replays.replay else {
        let words = "this node agent was started without what replays pulls".to_owned();
        return Err((StatusCode::NOT_IMPLEMENTED, words));
    };
    if body.len() > MAX_REQUEST {
        let words = format!("a request may have {MAX_REQUEST} bytes");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, words));
    }
    let ask: Ask = serde_json::from_slice(body).map_err(|error| {
        let words = format!("the request cannot be read: {error}");
        (StatusCode::BAD_REQUEST, words)
    })?;
    let image = Reference::parse(&ask.image)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let candidates = if ask.pod.is_empty() {
        Vec::new()
    } else {
        candidates(shared, &ask, &image).await?
    };
    let Ok(_turn) = replays.turns.try_acquire() else {
        let words = format!("{AT_ONCE} replays run on this node already");
        return Err((StatusCode::TOO_MANY_REQUESTS, words));
    };
    let report = replay.run(Wanted {
        image: ask.image,
        candidates,
    });
    let report = tokio::time::timeout(Replay::TIME * 2, report).await;
    let report = report.map_err(|_| {
        let words = "the replay did not end".to_owned();
        (StatusCode::GATEWAY_TIMEOUT, words)
    })?;
    let bytes = serde_json::to_vec(&report).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > MAX_REPORT {
        let words = "the report is longer than what is sent".to_owned();
        return Err((StatusCode::INTERNAL_SERVER_ERROR, words));
    }
    Ok(serde_json::json!({
        "apiVersion": "towline.dev/v1",
        "kind": "NodeReplay",
        "node": shared.agent.settings.node_name,
        "report": report,
    }))
}

/// The logins that this agent tries for an image of the pod, in its order.
async fn candidates(
    shared: &Shared,
    ask: &Ask,
    image: &Reference,
) -> Result<Vec<towline_keyring::Candidate>, Refusal> {
    let (namespace, name) = (&ask.namespace, &ask.pod);
    let Some(pod) = shared.workers.find(namespace, name) else {
        let words = format!("pod {namespace}/{name} is not on this node");
        return Err((StatusCode::NOT_FOUND, words));
    };
    let containers = view::containers(&pod);
    let mut named = containers.iter().map(|(_, container)| &container.image);
    if !named.any(|named| named.as_deref() == Some(&ask.image)) {
        let words = format!("no container of pod {namespace}/{name} has the image {image}");
        return Err((StatusCode::BAD_REQUEST, words));
    }
    let secrets = pull_secrets(&shared.agent, &pod).await;
    let offer = secrets.lookup(&pod, image).map_err(|error| {
        let words = format!("a pull secret of the pod cannot be read: {error}");
        (StatusCode::UNPROCESSABLE_ENTITY, words)
    })?;
    Ok(offer.candidates)
}
