//! The cause of a pull that failed, from where it is best known.
//!
//! Our own runtime says it in the error's details or in the text's suffix; another runtime's words are read. What only
//! the kubelet knows (secrets that are missing, or for another host) then explains why no login was sent.

use towline_cause::{Cause, CauseName, Step, suffix};

use super::puller::PullError;
use crate::cri::CriError;

/// What is known of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) cause: CauseName,
    pub(crate) step: Option<Step>,
    pub(crate) endpoint: Option<String>,
    /// It was read out of words, not named by the runtime.
    pub(crate) read: bool,
}

impl Known {
    /// A cause that the kubelet itself found.
    pub(crate) fn here(cause: Cause, step: Step) -> Self {
        Self {
            cause: cause.into(),
            step: Some(step),
            endpoint: None,
            read: false,
        }
    }
}

/// What the pod's secrets offered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Offered {
    /// Secrets that the pod names.
    pub(crate) named: usize,
    /// Of these, those that do not exist.
    pub(crate) missing: usize,
    /// Entries for any host in the others.
    pub(crate) entries: usize,
    /// Credentials that were sent.
    pub(crate) sent: usize,
}

/// The cause of a failed pull.
pub(crate) fn of(error: &PullError, offered: Offered) -> Known {
    let known = match error {
        PullError::QpsExceeded => return Known::here(Cause::PullThrottled, Step::Queue),
        PullError::Runtime(errors) => {
            let all: Vec<Known> = errors.iter().map(of_runtime).collect();
            // An answer that a login got through to says more than one that refuses the login.
            let deeper = all.iter().rev().find(|k| !refuses_login(k)).cloned();
            deeper.or_else(|| all.last().cloned())
        }
    };
    let unknown = Known {
        cause: Cause::Unknown.into(),
        step: None,
        endpoint: None,
        read: false,
    };
    refine(known.unwrap_or(unknown), offered)
}

/// The cause of one error of the runtime.
pub(crate) fn of_runtime(error: &CriError) -> Known {
    if let Some(details) = &error.details {
        return Known {
            cause: details.cause.clone(),
            step: details.step,
            endpoint: details.endpoint.clone(),
            read: false,
        };
    }
    if let Some(suffix) = suffix::parse(&error.desc) {
        return Known {
            cause: suffix.cause,
            step: suffix.step,
            endpoint: suffix.endpoint,
            read: false,
        };
    }
    let reading = towline_dialect::read(&error.pull_text());
    Known {
        cause: reading.cause.into(),
        step: reading.step,
        endpoint: reading.endpoint,
        read: true,
    }
}

fn refuses_login(known: &Known) -> bool {
    matches!(
        known.cause.cause(),
        Cause::NoCredentials
            | Cause::WrongCredentials
            | Cause::ExpiredCredentials
            | Cause::InsufficientPermission
    )
}

/// No login was sent although the pod names secrets: the secrets are the cause.
fn refine(known: Known, offered: Offered) -> Known {
    if known.cause.cause() != Cause::NoCredentials || offered.sent > 0 || offered.named == 0 {
        return known;
    }
    let cause = if offered.missing > 0 {
        Cause::PullSecretMissing
    } else if offered.entries > 0 {
        Cause::PullSecretWrongHost
    } else {
        Cause::PullSecretMalformed
    };
    Known {
        cause: cause.into(),
        step: Some(Step::Credentials),
        ..known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn runtime(texts: &[&str]) -> PullError {
        PullError::Runtime(
            texts
                .iter()
                .map(|t| CriError::from(Status::unknown(*t)))
                .collect(),
        )
    }

    fn named(cause: Cause) -> String {
        format!(
            "x {}",
            suffix::render(cause, Step::Resolve, Some("https://r.test"))
        )
    }

    #[test]
    fn the_suffix_is_read() {
        let known = of(&runtime(&[&named(Cause::TagNotFound)]), Offered::default());
        assert_eq!(known.cause.cause(), Cause::TagNotFound);
        assert_eq!(known.step, Some(Step::Resolve));
        assert_eq!(known.endpoint.as_deref(), Some("https://r.test"));
    }

    #[test]
    fn of_several_credentials_the_one_that_got_through_counts() {
        let (wrong, absent) = (
            named(Cause::WrongCredentials),
            named(Cause::RepositoryNotFound),
        );
        for texts in [
            [wrong.as_str(), absent.as_str()],
            [absent.as_str(), wrong.as_str()],
        ] {
            let known = of(&runtime(&texts), Offered::default());
            assert_eq!(known.cause.cause(), Cause::RepositoryNotFound);
        }
        let known = of(&runtime(&[&wrong]), Offered::default());
        assert_eq!(known.cause.cause(), Cause::WrongCredentials);
    }

    #[test]
    fn secrets_explain_why_no_login_was_sent() {
        let offered = |named, missing, entries, sent| Offered {
            named,
            missing,
            entries,
            sent,
        };
        for (offered, cause) in [
            (offered(0, 0, 0, 0), Cause::NoCredentials),
            (offered(1, 1, 0, 0), Cause::PullSecretMissing),
            (offered(2, 1, 1, 0), Cause::PullSecretMissing),
            (offered(1, 0, 1, 0), Cause::PullSecretWrongHost),
            (offered(1, 0, 0, 0), Cause::PullSecretMalformed),
            (offered(1, 0, 1, 1), Cause::NoCredentials),
        ] {
            let known = of(&runtime(&[&named(Cause::NoCredentials)]), offered);
            assert_eq!(known.cause.cause(), cause, "{offered:?}");
        }
    }

    #[test]
    fn the_nodes_own_limit() {
        let known = of(&PullError::QpsExceeded, Offered::default());
        assert_eq!(known, Known::here(Cause::PullThrottled, Step::Queue));
    }
}
