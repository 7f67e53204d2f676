//! What replays pulls for a node agent: the probe, with a registry client that is told what the runtime's own client is told.

use tokio::task::JoinHandle;
use towline_distribution::{Client, Options, OptionsError};
use towline_kubelet::{Replay, Wanted};
use towline_probe::Request;

/// Replays pulls as a client with these options makes them, each to its end or for [`Replay::TIME`].
pub fn with(options: Options) -> Result<Replay, OptionsError> {
    let client = Client::new(options)?;
    Ok(Replay::new(move |wanted| {
        // A task of its own begins with an empty stack: below a server's handlers a replay overflows that of a worker thread.
        let task = towline_sys::task::spawn("replay", report(client.clone(), wanted));
        let mut task = Aborted(task);
        Box::pin(async move { (&mut task.0).await.unwrap_or_default() })
    }))
}

/// A task that ends when nobody waits for it any more, so that what bounds the waiters bounds the tasks.
struct Aborted(JoinHandle<serde_json::Value>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn report(client: Client, wanted: Wanted) -> serde_json::Value {
    let mut request = Request::new(wanted.image);
    request.candidates = wanted.candidates;
    request.budget = Replay::TIME;
    let report = Box::pin(towline_probe::run(&client, request)).await;
    serde_json::to_value(report).unwrap_or_default()
}
