//! Whether the object storage answers, for those who ask whether this registry is ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use towline_sys::task;

use super::journal::Journal;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer counts: whoever asks often asks the storage seldom.
const FRESH: Duration = Duration::from_secs(5);

impl Journal {
    /// Whether the storage answers, or did a moment ago. It is asked once however many want to know, and to the end where they go away
    /// meanwhile: who waits for less than the storage takes learns it the next time.
    pub(crate) async fn answers(self: &Arc<Self>) -> bool {
        let this = Arc::clone(self);
        let asked = task::spawn("ask the object storage", async move {
            let mut known = this.answered.lock().await;
            match *known {
                Some((at, answers)) if at.elapsed() < FRESH => answers,
                _ => {
                    let answers = this.asked().await;
                    *known = Some((Instant::now(), answers));
                    answers
                }
            }
        });
        asked.await.unwrap_or(false)
    }

    async fn asked(&self) -> bool {
        let asked = tokio::time::timeout(PATIENCE, self.client.list("lease", None, 1)).await;
        let why = match asked {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => task::chain(&error),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::warn!(why, "the object storage does not answer");
        false
    }
}
