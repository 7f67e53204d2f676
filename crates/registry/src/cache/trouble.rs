//! Why something did not come from an upstream, and what a client is told of it.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use serde_json::json;
use towline_cause::{Cause, Failure, Step, suffix};

use super::upstream::Known;
use crate::refusal::Refusal;
use crate::storage::StorageError;

/// The longest wait that an upstream may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How long an upstream is left alone that says "too many requests" and not for how long.
const LIMIT_WAIT: Duration = Duration::from_secs(30);
/// Characters of an upstream's trouble that a client is told.
const WORDS: usize = 500;

/// Why something did not come. Cheap to clone: everyone who waits is told the same.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The upstream has it not, refuses it, fails, or lies.
    Upstream(Arc<Failure>),
    /// It came and cannot be kept.
    Storage(Arc<StorageError>),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Upstream(Arc::new(failure))
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// What kind of trouble an upstream has, as far as it matters for what is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It said so itself: there is no such thing.
    Absent,
    /// It is asked too often, and no request will do before this time is over.
    Limited(Duration),
    /// It cannot be reached: no other request would do either.
    Unreachable,
    /// This request failed.
    Failed,
}

/// Reads the kind of a failure.
pub(crate) fn kind(failure: &Failure) -> Kind {
    match failure.cause() {
        Cause::TagNotFound
        | Cause::DigestNotFound
        | Cause::RepositoryNotFound
        | Cause::BlobMissing => Kind::Absent,
        Cause::RateLimited => Kind::Limited(failure.wait().unwrap_or(LIMIT_WAIT).min(LONGEST_WAIT)),
        _ if matches!(failure.step(), Step::Dns | Step::Connect | Step::Tls) => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

/// Whether the upstream itself says that there is no such thing, and nothing else is left open.
pub(crate) fn is_proven_absent(failure: &Failure) -> bool {
    kind(failure) == Kind::Absent && failure.alternatives().is_empty()
}

impl Trouble {
    /// What a client is told.
    pub(crate) fn refusal(&self, upstream: &Known) -> Refusal {
        match self {
            Self::Upstream(failure) => refusal(upstream, failure),
            Self::Storage(error) => of_storage(error),
        }
    }
}

/// A storage error is told as it is; it cannot be cloned, so what matters of it is copied.
pub(super) fn of_storage(error: &StorageError) -> Refusal {
    if let StorageError::OverQuota(over) = error {
        // It is no fault of whoever pulls, whichever quota it is.
        return Refusal {
            status: StatusCode::INSUFFICIENT_STORAGE,
            ..over.into()
        };
    }
    let (status, message) = match error {
        StorageError::Fs(error) if error.is_no_space() => (
            StatusCode::INSUFFICIENT_STORAGE,
            "the registry's disk is full",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the registry's storage failed",
        ),
    };
    Refusal {
        internal: Some(towline_sys::task::chain(error)),
        ..Refusal::new(status, "UNKNOWN", message).cause(Cause::RegistryError)
    }
}

/// The status and code for a cause. What an upstream refuses to this registry is no refusal of whoever asks here: a 401 or 403 would
/// send them looking for a login of theirs. And only what the upstream has not is "not found".
fn status(cause: Cause) -> (StatusCode, &'static str) {
    match cause {
        Cause::TagNotFound | Cause::DigestNotFound => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        Cause::RepositoryNotFound => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        Cause::BlobMissing => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        Cause::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        Cause::ConnectionTimeout | Cause::PullStalled | Cause::DeadlineExceeded => {
            (StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE")
        }
        _ => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
    }
}

/// The upstream's failure, told with its true cause in words and for machines.
fn refusal(upstream: &Known, failure: &Failure) -> Refusal {
    let (cause, step, endpoint) = (failure.cause(), failure.step(), failure.endpoint());
    let (status, code) = status(cause);
    let words: String = failure.chain().chars().take(WORDS).collect();
    // Programs that only pass texts on pass the cause on with this ending. For whoever pulls, an upstream's trouble is the cache's.
    let told = match kind(failure) {
        Kind::Absent | Kind::Limited(_) => cause,
        Kind::Unreachable | Kind::Failed => Cause::ProxyCacheFailed,
    };
    let message = format!(
        "upstream {}: {cause}: {words} {}",
        upstream.name(),
        suffix::render(told, step, endpoint)
    );
    let open: Vec<&str> = failure
        .alternatives()
        .iter()
        .map(|cause| cause.name())
        .collect();
    let mut detail = json!({
        "upstream": upstream.name(),
        "cause": cause.name(),
        "step": step.name(),
        "endpoint": endpoint,
        "alternatives": open,
    });
    if let Some(budget) = upstream.budget() {
        detail["budget"] = json!(budget);
    }
    let refusal = Refusal {
        beneath: (told != cause).then_some(cause),
        ..Refusal::new(status, code, message)
            .cause(told)
            .detail(detail)
    };
    let wait = match kind(failure) {
        Kind::Limited(wait) => Some(wait.as_secs().max(1)),
        _ => None,
    };
    match wait {
        Some(seconds) => refusal.header(header::RETRY_AFTER, &seconds.to_string()),
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_refuses_to_us_is_not_refused_to_the_client_and_nothing_else_is_not_found() {
        for cause in Cause::ALL {
            let (status, _) = status(cause);
            assert!(status != 401 && status != 403, "{cause}");
            let failure = Failure::new(cause, Step::Resolve, "x");
            assert_eq!(status == 404, kind(&failure) == Kind::Absent, "{cause}");
        }
    }

    #[test]
    fn an_absence_that_leaves_another_cause_open_is_not_proven() {
        let failure = || Failure::new(Cause::TagNotFound, Step::Resolve, "x");
        assert!(is_proven_absent(&failure()));
        assert!(!is_proven_absent(&failure().or_else([Cause::NotARegistry])));
    }
}
