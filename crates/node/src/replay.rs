//! What replays pulls for a node agent: the probe, with a registry client that is told what the runtime's own client is told.

use towline_distribution::{Client, Options, OptionsError};
use towline_kubelet::{Replay, Wanted};
use towline_probe::Request;

/// Replays pulls as a client with these options makes them, each to its end or for [`Replay::TIME`].
pub fn with(options: Options) -> Result<Replay, OptionsError> {
    let client = Client::new(options)?;
    Ok(Replay::new(move |wanted| {
        Box::pin(report(client.clone(), wanted))
    }))
}

async fn report(client: Client, wanted: Wanted) -> serde_json::Value {
    let mut request = Request::new(wanted.image);
    request.candidates = wanted.candidates;
    request.budget = Replay::TIME;
    let report = towline_probe::run(&client, request).await;
    serde_json::to_value(report).unwrap_or_default()
}
