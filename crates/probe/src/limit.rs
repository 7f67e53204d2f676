//! What a registry says of its rate limit: how much is left, of what, for whom, and until when.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use towline_distribution::Fact;

/// The longest time that a registry may name: beyond that it does not mean a limit of its rate.
const LONGEST: i64 = 7 * 86_400;
/// The most characters of an account's name.
const MOST_NAME: usize = 64;

/// What the registry says of its rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// `ratelimit-limit` as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// `ratelimit-remaining` as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<String>,
    /// Who is charged: an address or an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it may be asked again, RFC 3339 to the second: from `Retry-After` of a refusal, or `ratelimit-reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets: Option<String>,
}

impl RateLimit {
    /// Reads it out of answers that came just before `now`: of each header the last counts. `None` where they say nothing of a limit.
    pub(crate) fn of(facts: &[Fact], now: Timestamp) -> Option<Self> {
        let mut found = Self {
            limit: None,
            remaining: None,
            source: None,
            resets: None,
        };
        for fact in facts {
            let Fact::Request {
                headers, status, ..
            } = fact
            else {
                continue;
            };
            let of = |name: &str| {
                let header = headers.iter().find(|(known, _)| known == name);
                header.map(|(_, value)| value.clone())
            };
            let refused = *status == Some(429);
            let again = of("retry-after").filter(|_| refused);
            let resets = again
                .and_then(|value| moment(&value, now))
                .or_else(|| moment(&of("ratelimit-reset")?, now));
            found.limit = of("ratelimit-limit").or(found.limit);
            found.remaining = of("ratelimit-remaining").or(found.remaining);
            found.source = of("docker-ratelimit-source")
                .filter(|name| is_name(name))
                .or(found.source);
            found.resets = resets.map(|time| time.to_string()).or(found.resets);
        }
        let said = found.limit.is_some() || found.remaining.is_some() || found.resets.is_some();
        said.then_some(found)
    }

    /// Pulls or requests that are left.
    pub fn left(&self) -> Option<u64> {
        number(self.remaining.as_deref()?)
    }

    /// Who is charged: `address 203.0.113.7`, `account 5f1d...`.
    pub fn whom(&self) -> Option<String> {
        let source = self.source.as_deref()?;
        Some(match source.parse::<IpAddr>() {
            Ok(address) => format!("address {address}"),
            Err(_) => format!("account {source}"),
        })
    }

    /// `0 of 100 in 6 h are left for address 203.0.113.7, it may be asked again from 2026-11-30T14:05:00Z`.
    pub fn words(&self) -> String {
        let limit = self.limit.as_deref();
        let all = limit.and_then(number);
        let within = limit.and_then(window).map(|seconds| match seconds {
            0..120 => format!(" in {seconds} s"),
            120..7200 => format!(" in {} min", seconds / 60),
            _ => format!(" in {} h", seconds / 3600),
        });
        let within = within.unwrap_or_default();
        let mut words = match (self.left(), all) {
            (Some(left), Some(all)) => format!("{left} of {all}{within} are left"),
            (Some(left), None) => format!("{left} are left"),
            (None, Some(all)) => format!("it gives out {all}{within}"),
            (None, None) => "it counts requests".to_owned(),
        };
        if let Some(whom) = self.whom() {
            words = format!("{words} for {whom}");
        }
        if let Some(resets) = &self.resets {
            words = format!("{words}, it may be asked again from {resets}");
        }
        words
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    !text.is_empty() && text.len() <= MOST_NAME && text.chars().all(plain)
}

/// The first number of `100;w=21600`.
fn number(value: &str) -> Option<u64> {
    let mut digits = value.trim_start().split(|c: char| !c.is_ascii_digit());
    digits.next()?.parse().ok()
}

/// The seconds of `100;w=21600`.
fn window(value: &str) -> Option<u64> {
    number(value.split_once("w=")?.1)
}

/// A time as these headers write it: seconds from now, seconds since 1970, or an HTTP date.
fn moment(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    let then = match value.split([';', ',']).next()?.trim().parse::<i64>() {
        Ok(seconds) if seconds > LONGEST => Timestamp::from_second(seconds).ok()?,
        Ok(seconds) => now.checked_add(SignedDuration::from_secs(seconds)).ok()?,
        Err(_) => jiff::fmt::rfc2822::parse(value).ok()?.timestamp(),
    };
    let ahead = then.as_second() - now.as_second();
    let sound = (0..=LONGEST).contains(&ahead);
    sound.then(|| Timestamp::from_second(then.as_second()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Fact {
        let headers = headers.iter();
        Fact::Request {
            method: "HEAD".to_owned(),
            endpoint: "https://registry-1.docker.io".to_owned(),
            path: "/v2/library/nginx/manifests/1".to_owned(),
            credential: "nothing".to_owned(),
            status: Some(status),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            protocol: None,
            error: None,
            micros: 1,
        }
    }

    #[test]
    fn what_is_left_for_whom_and_until_when() {
        let now: Timestamp = "2026-11-30T13:00:00Z".parse().unwrap();
        let hub = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "0;w=21600"),
            ("docker-ratelimit-source", "203.0.113.7"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&hub[..], more].concat();
        for (status, headers, want) in [
            (
                429,
                with(&[("retry-after", "3900")]),
                "0 of 100 in 6 h are left for address 203.0.113.7, it may be asked again from 2026-11-30T14:05:00Z",
            ),
            (
                429,
                with(&[("retry-after", "Mon, 30 Nov 2026 14:05:00 GMT")]),
                "0 of 100 in 6 h are left for address 203.0.113.7, it may be asked again from 2026-11-30T14:05:00Z",
            ),
            (
                200,
                with(&[("retry-after", "60")]),
                "0 of 100 in 6 h are left for address 203.0.113.7",
            ),
            (
                200,
                vec![
                    ("ratelimit-remaining", "7"),
                    ("ratelimit-reset", "1796047500"),
                    ("docker-ratelimit-source", "5f1d-aa"),
                ],
                "7 are left for account 5f1d-aa, it may be asked again from 2026-11-30T14:05:00Z",
            ),
            (
                429,
                vec![("retry-after", "60"), ("docker-ratelimit-source", "a b\"")],
                "it counts requests, it may be asked again from 2026-11-30T13:01:00Z",
            ),
            (
                429,
                vec![("ratelimit-limit", "50"), ("retry-after", "99999999999999")],
                "it gives out 50",
            ),
        ] {
            let found = RateLimit::of(&[answer(status, &headers)], now).unwrap();
            assert_eq!(found.words(), want);
        }
        assert_eq!(RateLimit::of(&[answer(429, &[])], now), None);
    }

    #[test]
    fn the_last_word_counts() {
        let now = Timestamp::UNIX_EPOCH;
        let facts = [
            answer(
                200,
                &[("ratelimit-remaining", "9"), ("ratelimit-limit", "10")],
            ),
            answer(200, &[("ratelimit-remaining", "8")]),
        ];
        let found = RateLimit::of(&facts, now).unwrap();
        assert_eq!(
            (found.left(), found.words().as_str()),
            (Some(8), "8 of 10 are left")
        );
    }
}
