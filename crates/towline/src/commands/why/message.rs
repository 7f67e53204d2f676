//! `towline why --message`: what a person pasted, explained without a cluster.

use std::io::Read as _;

use anyhow::Context as _;
use towline_explain::text;

use super::answer::Answer;
use crate::exit::Usage;

/// Explains a text, or standard input where it is `-`.
pub(super) fn read(message: &str) -> anyhow::Result<Answer> {
    let pasted;
    let message = if message == "-" {
        pasted = standard_input()?;
        pasted.as_str()
    } else {
        message
    };
    if message.trim().is_empty() {
        return Err(Usage(
            "there is no text: paste a message, `kubectl describe pod` or `kubectl get events`"
                .to_owned(),
        )
        .into());
    }
    Ok(Answer::of_text(text::scan(message)))
}

/// At most one byte more than what is looked at, so that the answer can say that there was more. What is no text becomes some.
fn standard_input() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let most = text::MAX_INPUT as u64 + 1;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .context("read standard input")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
