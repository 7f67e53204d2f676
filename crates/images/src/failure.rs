//! One failure for many waiters.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use towline_cause::{Cause, Failure, Step};

/// A copy of a failure that several waiters get. The error underneath is shared.
pub(crate) fn copy(failure: &Arc<Failure>) -> Failure {
    let mut copied = plain_copy(failure);
    if failure.source().is_some() {
        copied = copied.because(Underneath(Arc::clone(failure)));
    }
    copied
}

fn plain_copy(failure: &Failure) -> Failure {
    let mut copied = Failure::new(failure.cause(), failure.step(), failure.detail())
        .or_else(failure.alternatives().iter().copied())
        .with_others(failure.others().iter().map(with_words).collect());
    if let Some(endpoint) = failure.endpoint() {
        copied = copied.at(endpoint);
    }
    if let Some(wait) = failure.wait() {
        copied = copied.retry_after(wait);
    }
    copied
}

/// A copy whose error underneath is its words.
fn with_words(failure: &Failure) -> Failure {
    let copied = plain_copy(failure);
    match failure.source() {
        Some(source) => copied.because(towline_sys::task::chain(source)),
        None => copied,
    }
}

/// The error below a shared failure.
#[derive(Debug)]
struct Underneath(Arc<Failure>);

impl fmt::Display for Underneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(source) => fmt::Display::fmt(source, f),
            None => Ok(()),
        }
    }
}

impl Error for Underneath {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}

/// The pull was given up by whoever waited for it.
pub(crate) fn given_up(step: Step, bytes: u64, total: u64) -> Failure {
    let detail = if total == 0 {
        "the pull was given up by its caller".to_owned()
    } else {
        format!(
            "the pull was given up by its caller; {bytes} of {total} bytes are kept for the next attempt"
        )
    };
    Failure::new(Cause::DeadlineExceeded, step, detail).or_else([Cause::PullStalled])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_the_same() {
        let inner = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let other = Failure::new(Cause::TagNotFound, Step::Resolve, "no such tag");
        let failure = Failure::new(Cause::ConnectionRefused, Step::Connect, "refused")
            .at("https://r.example")
            .because(inner)
            .or_else([Cause::AccessRestricted])
            .with_others(vec![other]);
        let failure = Arc::new(failure);
        let copied = copy(&failure);
        assert_eq!(copied.chain(), failure.chain());
        assert_eq!(copied.endpoint(), failure.endpoint());
        assert_eq!(copied.alternatives(), failure.alternatives());
        assert_eq!(copied.others()[0].to_string(), "resolve: no such tag");
    }
}
