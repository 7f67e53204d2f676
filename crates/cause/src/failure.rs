//! A failed pull, as it travels from where the cause is known to whoever must act on it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{Cause, Step};

/// A source error of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Why a pull failed: cause, step, endpoint, words, and the error underneath.
///
/// `Display` prints the step and the words of this layer (`resolve: ...`); the error underneath is in `source()`.
/// No part of it may hold a secret, a URL query or user information.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    cause: Cause,
    step: Step,
    endpoint: Option<String>,
    detail: String,
    retry_after: Option<Duration>,
    alternatives: Vec<Cause>,
    others: Vec<Failure>,
    source: Option<BoxError>,
}

impl Failure {
    /// A failure of `step` for `cause`; `detail` says what was attempted, on what, and what came back.
    pub fn new(cause: Cause, step: Step, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            cause,
            step,
            endpoint: None,
            detail: detail.into(),
            retry_after: None,
            alternatives: Vec::new(),
            others: Vec::new(),
            source: None,
        }))
    }

    /// Names the endpoint: scheme, host and port, such as `https://registry.example:5000`.
    #[must_use]
    pub fn at(mut self, endpoint: impl Into<String>) -> Self {
        self.0.endpoint = Some(endpoint.into());
        self
    }

    /// Keeps the error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Keeps how long the other side asked to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Names causes that the evidence leaves open as well.
    #[must_use]
    pub fn or_else(mut self, alternatives: impl IntoIterator<Item = Cause>) -> Self {
        self.0.alternatives.extend(alternatives);
        self
    }

    /// Keeps the outcomes of other endpoints or credentials, best first.
    #[must_use]
    pub fn with_others(mut self, others: Vec<Self>) -> Self {
        self.0.others = others;
        self
    }

    /// Adds outcomes of other endpoints behind those that are kept already.
    #[must_use]
    pub fn and_others(mut self, others: Vec<Self>) -> Self {
        self.0.others.extend(others);
        self
    }

    /// Names another cause: whoever passes a failure on may know more than who saw it.
    #[must_use]
    pub fn of_cause(mut self, cause: Cause) -> Self {
        self.0.cause = cause;
        self
    }

    /// Adds words to this layer's own.
    #[must_use]
    pub fn adding(mut self, words: &str) -> Self {
        self.0.detail.push_str(words);
        self
    }

    /// The cause.
    pub fn cause(&self) -> Cause {
        self.0.cause
    }

    /// Where the pull stopped.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// Scheme, host and port of the endpoint that failed, where one was involved.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// This layer's own words.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// How long the other side asked to wait.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Causes that the evidence leaves open as well.
    pub fn alternatives(&self) -> &[Cause] {
        &self.0.alternatives
    }

    /// Outcomes of other endpoints or credentials, best first.
    pub fn others(&self) -> &[Self] {
        &self.0.others
    }

    /// The whole chain in one line: `resolve: words: words underneath`. A text that repeats its source is printed once.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let words = error.to_string();
            if !words.is_empty() && !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            source = error.source();
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.step, self.0.detail)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_holds_every_layer_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::new(
            Cause::ConnectionRefused,
            Step::Connect,
            "127.0.0.1:5000 refuses the connection",
        )
        .at("http://127.0.0.1:5000")
        .because(refused);
        assert_eq!(
            failure.to_string(),
            "connect: 127.0.0.1:5000 refuses the connection"
        );
        assert_eq!(
            failure.chain(),
            "connect: 127.0.0.1:5000 refuses the connection: connection refused"
        );
    }
}
