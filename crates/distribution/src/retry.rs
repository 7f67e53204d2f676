//! The one table of what is sent again, how often and after how long. Nothing that cannot change is.

use std::time::Duration;

use towline_cause::{Cause, Failure};

use crate::body::BodyFault;
use crate::connect::ConnectFault;
use crate::dns::DnsFault;
use crate::options::Retries;
use crate::proxy::ProxyFault;
use crate::tls::TlsFault;
use crate::transport::SendFault;

/// What came of an attempt, as far as another one depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It will be the same next time.
    Final,
    /// It may pass at once; so often at most, whatever the options allow.
    Passing {
        /// Most attempts.
        most: u32,
    },
    /// The server asks for patience; and for how long, where it says so.
    Busy {
        /// From `Retry-After`.
        wait: Option<Duration>,
    },
}

/// What a request without an answer means for another attempt.
pub(crate) fn of_fault(fault: &SendFault) -> Seen {
    match fault {
        SendFault::Dns { fault, .. } => match fault {
            DnsFault::ServerFailure | DnsFault::Timeout => Seen::Passing { most: 2 },
            _ => Seen::Final,
        },
        SendFault::Connect(error) => match error.fault {
            ConnectFault::Refused | ConnectFault::Reset => Seen::Passing { most: 2 },
            _ => Seen::Final,
        },
        SendFault::Tls(fault) => match fault {
            TlsFault::Closed | TlsFault::Reset => Seen::Passing { most: 3 },
            TlsFault::Timeout => Seen::Passing { most: 2 },
            _ => Seen::Final,
        },
        SendFault::HeadersTimeout(_) => Seen::Passing { most: 2 },
        SendFault::Closed | SendFault::Reset | SendFault::Stream(_) => {
            Seen::Passing { most: u32::MAX }
        }
        SendFault::Proxy { fault, .. } => match fault {
            ProxyFault::Unreached(inner) => of_fault(inner),
            ProxyFault::Answered { status: 500.., .. } => Seen::Passing { most: 2 },
            _ => Seen::Final,
        },
        SendFault::Forbidden(_)
        | SendFault::TlsOnPlain
        | SendFault::HeadersTooLarge
        | SendFault::NotHttp(_)
        | SendFault::Other(_) => Seen::Final,
    }
}

/// What a status means for another attempt.
pub(crate) fn of_status(status: u16, wait: Option<Duration>) -> Seen {
    match status {
        408 | 500 | 502 | 504 => Seen::Passing { most: 3 },
        429 | 503 => Seen::Busy { wait },
        _ => Seen::Final,
    }
}

/// What a broken body means for another attempt.
pub(crate) fn of_body(fault: &BodyFault) -> Seen {
    match fault {
        BodyFault::TooLarge(_) => Seen::Final,
        _ => Seen::Passing { most: u32::MAX },
    }
}

/// What an endpoint's whole failure means for another attempt at that endpoint, once the others were asked.
pub(crate) fn of_failure(failure: &Failure) -> Seen {
    match failure.cause() {
        Cause::RateLimited => Seen::Busy {
            wait: failure.wait(),
        },
        Cause::RegistryError if failure.wait().is_some() => Seen::Busy {
            wait: failure.wait(),
        },
        Cause::RegistryError => Seen::Passing { most: 3 },
        Cause::ConnectionReset | Cause::PullStalled => Seen::Passing { most: u32::MAX },
        Cause::ConnectionRefused
        | Cause::RegistryIsLocalhost
        | Cause::ConnectionTimeout
        | Cause::DnsFailed
        | Cause::BlobHostUnreachable
        | Cause::TokenServiceUnreachable => Seen::Passing { most: 2 },
        _ => Seen::Final,
    }
}

/// The longest wait for a host that is away: a registry that restarts is back within seconds, and nobody should wait much longer than that.
const AWAY: Duration = Duration::from_secs(2);

/// When to ask again for a host that was there and takes no connection for `quiet` so far; `None` once that is as long as the options allow.
pub(crate) fn while_away(
    quiet: Duration,
    attempt: u32,
    retries: &Retries,
    random: f64,
) -> Option<Duration> {
    if quiet >= retries.patience {
        return None;
    }
    let patient = Retries {
        attempts: u32::MAX,
        longest: retries.longest.min(AWAY),
        ..*retries
    };
    next(Seen::Passing { most: u32::MAX }, attempt, &patient, random)
}

/// Whether and when to send again after attempt number `attempt` (from 1). `random` is uniform in 0..1.
pub(crate) fn next(seen: Seen, attempt: u32, retries: &Retries, random: f64) -> Option<Duration> {
    let most = match seen {
        Seen::Final => 1,
        Seen::Passing { most } => most.min(retries.attempts),
        Seen::Busy { .. } => retries.attempts,
    };
    if attempt >= most {
        return None;
    }
    let doubled = retries
        .base
        .saturating_mul(1 << (attempt - 1).min(16))
        .min(retries.longest);
    let jittered = doubled.mul_f64(0.5 + random.clamp(0.0, 1.0));
    match seen {
        Seen::Busy { wait: Some(wait) } if wait > retries.longest => None,
        // Everyone was told the same time: come a little later than that, each at another moment.
        Seen::Busy { wait: Some(wait) } => {
            Some(wait + retries.base.mul_f64(random.clamp(0.0, 1.0)))
        }
        _ => Some(jittered.min(retries.longest)),
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date. At most a day.
pub(crate) fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    const MOST: u64 = 86_400;
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(MOST)));
    }
    let then = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()?;
    let seconds = then.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(
        u64::try_from(seconds).unwrap_or(0).min(MOST),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries = Retries {
        attempts: 4,
        base: Duration::from_millis(100),
        longest: Duration::from_secs(1),
        patience: Duration::from_secs(30),
    };

    #[test]
    fn waits_double_and_stay_bounded() {
        let passing = Seen::Passing { most: 9 };
        let at = |attempt, random| next(passing, attempt, &RETRIES, random).map(|w| w.as_millis());
        assert_eq!(at(1, 0.0), Some(50));
        assert_eq!(at(1, 0.5), Some(100));
        assert_eq!(at(1, 1.0), Some(150));
        assert_eq!(at(3, 0.5), Some(400));
        assert_eq!(at(4, 0.5), None);
        let patient = Retries {
            attempts: 100,
            ..RETRIES
        };
        assert_eq!(
            next(passing, 8, &patient, 1.0).map(|w| w.as_millis()),
            Some(1000)
        );
    }

    #[test]
    fn a_host_that_is_away_is_waited_for_as_long_as_the_options_allow() {
        let secs = Duration::from_secs;
        let at = |quiet, attempt| while_away(quiet, attempt, &RETRIES, 0.5).map(|w| w.as_millis());
        assert_eq!(at(secs(0), 1), Some(100));
        assert_eq!(at(secs(29), 40), Some(1000), "more attempts than usual");
        assert_eq!(at(secs(30), 3), None);
        let usual = Retries::default();
        let longest = while_away(secs(9), 20, &usual, 1.0);
        assert_eq!(longest, Some(AWAY));
        assert_eq!(while_away(secs(0), 1, &Retries::NONE, 0.5), None);
    }

    #[test]
    fn the_table() {
        let secs = Duration::from_secs;
        for (seen, attempt, want) in [
            (Seen::Final, 1, None),
            (of_status(404, None), 1, None),
            (of_status(401, None), 1, None),
            (of_status(501, None), 1, None),
            (of_status(502, None), 2, Some(Duration::from_millis(200))),
            (of_status(502, None), 3, None),
            (of_status(429, None), 1, Some(Duration::from_millis(100))),
            (
                of_status(429, Some(secs(1))),
                1,
                Some(Duration::from_millis(1050)),
            ),
            (of_status(429, Some(secs(60))), 1, None),
            (
                of_status(503, Some(secs(0))),
                1,
                Some(Duration::from_millis(50)),
            ),
            (
                of_fault(&SendFault::Closed),
                3,
                Some(Duration::from_millis(400)),
            ),
            (of_fault(&SendFault::TlsOnPlain), 1, None),
            (
                of_fault(&SendFault::Dns {
                    fault: DnsFault::NoName,
                    asked: vec![],
                }),
                1,
                None,
            ),
            (
                of_fault(&SendFault::Dns {
                    fault: DnsFault::ServerFailure,
                    asked: vec![],
                }),
                1,
                Some(Duration::from_millis(100)),
            ),
            (
                of_fault(&SendFault::Tls(TlsFault::UnknownAuthority(None))),
                1,
                None,
            ),
        ] {
            assert_eq!(
                next(seen, attempt, &RETRIES, 0.5),
                want,
                "{seen:?} {attempt}"
            );
        }
        assert_eq!(next(of_status(500, None), 1, &Retries::NONE, 0.5), None);
    }

    #[test]
    fn an_endpoint_is_asked_again_for_what_may_pass() {
        let secs = Duration::from_secs;
        for (cause, wait, want) in [
            (Cause::TagNotFound, None, Seen::Final),
            (Cause::NoCredentials, None, Seen::Final),
            (Cause::DigestMismatch, None, Seen::Final),
            (Cause::TlsUnknownAuthority, None, Seen::Final),
            (Cause::ProxyAuthRequired, None, Seen::Final),
            (Cause::DnsNameNotFound, None, Seen::Final),
            (Cause::RateLimited, None, Seen::Busy { wait: None }),
            (
                Cause::RateLimited,
                Some(secs(7)),
                Seen::Busy {
                    wait: Some(secs(7)),
                },
            ),
            (
                Cause::RegistryError,
                Some(secs(7)),
                Seen::Busy {
                    wait: Some(secs(7)),
                },
            ),
            (Cause::RegistryError, None, Seen::Passing { most: 3 }),
            (Cause::ConnectionRefused, None, Seen::Passing { most: 2 }),
            (Cause::ConnectionTimeout, None, Seen::Passing { most: 2 }),
            (
                Cause::TokenServiceUnreachable,
                None,
                Seen::Passing { most: 2 },
            ),
            (
                Cause::ConnectionReset,
                None,
                Seen::Passing { most: u32::MAX },
            ),
        ] {
            let failure = Failure::new(cause, towline_cause::Step::Resolve, "words");
            let failure = match wait {
                Some(wait) => failure.retry_after(wait),
                None => failure,
            };
            assert_eq!(of_failure(&failure), want, "{cause}");
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now: jiff::Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (value, want) in [
            ("2", Some(2)),
            (" 0 ", Some(0)),
            ("99999999", Some(86_400)),
            ("Tue, 24 Nov 2026 10:00:30 GMT", Some(30)),
            ("Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("880us", None),
            ("-3", None),
            ("soon", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                want.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
