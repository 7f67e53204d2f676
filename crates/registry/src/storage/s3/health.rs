//! Whether the object storage answers, for those who ask whether this registry is ready.

use std::time::{Duration, Instant};

use super::journal::{Journal, lock};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer counts: whoever asks often asks the storage seldom.
const FRESH: Duration = Duration::from_secs(5);

impl Journal {
    /// Whether the storage answers, or did a moment ago.
    pub(crate) async fn answers(&self) -> bool {
        let known = *lock(&self.answered);
        if let Some((at, answers)) = known
            && at.elapsed() < FRESH
        {
            return answers;
        }
        let asked = tokio::time::timeout(PATIENCE, self.client.list("lease", None, 1)).await;
        let answers = matches!(asked, Ok(Ok(_)));
        if !answers {
            let why = match asked {
                Ok(Err(error)) => towline_sys::task::chain(&error),
                _ => format!("no answer within {} s", PATIENCE.as_secs()),
            };
            tracing::warn!(why, "the object storage does not answer");
        }
        *lock(&self.answered) = Some((Instant::now(), answers));
        answers
    }
}
