//! When a login ends by its own word: tokens that hold the time, and those of registries whose logins live for a known time. Never a
//! value, and nothing is guessed from text that is not such a token.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use towline_keyring::{Candidate, Credential, Origin};

use crate::Evidence;

/// The most bytes of a token that are looked at.
const MAX_TOKEN: usize = 64 * 1024;
/// How long a login of Amazon's registry lives, by its documentation of `get-login-password`.
const ECR_HOURS: i64 = 12;

/// The end of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) at: Timestamp,
    /// What says so.
    pub(crate) by: &'static str,
}

impl Expiry {
    /// `expired at ... (its token says so)`, or when it will.
    pub(crate) fn words(&self, now: Timestamp) -> String {
        let at = self.at.round(jiff::Unit::Second).unwrap_or(self.at);
        let verb = if self.at <= now { "expired" } else { "expires" };
        format!("{verb} at {at} ({})", self.by)
    }
}

/// The ends of the logins that a pod offers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// `the login for "r.test" in secret shop/regcred` and how it ends.
    known: Vec<(String, Expiry)>,
    offered: usize,
    now: Option<Timestamp>,
}

impl Ends {
    /// Looks at each login; `written` tells when a secret of the pod's namespace was last written.
    pub(crate) fn of(
        candidates: &[Candidate],
        registry: &str,
        now: Timestamp,
        written: impl Fn(&str) -> Option<Timestamp>,
    ) -> Self {
        let known = candidates.iter().filter_map(|candidate| {
            let written = match &candidate.origin {
                Origin::PodSecret { name, .. } => written(name),
                _ => None,
            };
            let expiry = of(candidate, registry, written)?;
            Some((candidate.origin.to_string(), expiry))
        });
        Self {
            known: known.collect(),
            offered: candidates.len(),
            now: Some(now),
        }
    }

    /// Whether every login that is offered has ended.
    pub(crate) fn all_over(&self) -> bool {
        let Some(now) = self.now else {
            return false;
        };
        let over = self.known.iter().filter(|(_, expiry)| expiry.at <= now);
        self.offered > 0 && over.count() == self.offered
    }

    /// What is known of them, a line each.
    pub(crate) fn evidence(&self) -> Vec<Evidence> {
        let now = self.now.unwrap_or_default();
        let line = |(origin, expiry): &(String, Expiry)| Evidence {
            fact: format!("the login of {origin} {}", expiry.words(now)),
            seen_from: "the cluster's API".to_owned(),
            seen_by: "towline".to_owned(),
        };
        self.known.iter().map(line).collect()
    }
}

/// When a login ends, where that can be known. `written` is when its secret was last written.
pub(crate) fn of(
    candidate: &Candidate,
    registry: &str,
    written: Option<Timestamp>,
) -> Option<Expiry> {
    let (user, secret) = match &candidate.credential {
        Credential::Basic { username, password } => (username.as_str(), password.expose()),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => ("", token.expose()),
        Credential::Anonymous => return None,
    };
    if secret.len() > MAX_TOKEN {
        return None;
    }
    let told = web_token(secret).map(|seconds| (seconds, "its token says so"));
    let told = told.or_else(|| {
        let seconds = (user == "AWS").then(|| amazon_token(secret)).flatten();
        seconds.map(|seconds| (seconds, "its token says so"))
    });
    if let Some((seconds, by)) = told {
        let at = Timestamp::from_second(seconds).ok()?;
        return Some(Expiry { at, by });
    }
    if user == "AWS" && is_amazon(registry) {
        let at = written?.checked_add(SignedDuration::from_hours(ECR_HOURS));
        return Some(Expiry {
            at: at.ok()?,
            by: "logins of this registry live 12 h from when they are made, and the secret was written before that",
        });
    }
    None
}

/// `123456789012.dkr.ecr.eu-west-1.amazonaws.com`, also in China and the dual-stack form.
fn is_amazon(registry: &str) -> bool {
    let amazon = registry.ends_with(".amazonaws.com") || registry.ends_with(".amazonaws.com.cn");
    (amazon && registry.contains(".dkr.ecr")) || registry.ends_with(".on.aws")
}

/// `exp` of a JSON web token. Its signature is the registry's matter.
fn web_token(text: &str) -> Option<i64> {
    let mut parts = text.split('.');
    let (head, body, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !head.starts_with("eyJ") {
        return None;
    }
    let body = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    seconds(&body, "exp")
}

/// `expiration` of the JSON that Amazon's passwords are, in base64.
fn amazon_token(text: &str) -> Option<i64> {
    seconds(&STANDARD.decode(text.trim()).ok()?, "expiration")
}

fn seconds(json: &[u8], field: &str) -> Option<i64> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let value = &value[field];
    let seconds = value.as_i64();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "some issuers write fractions; a number out of range becomes a time out of range"
    )]
    seconds.or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(user: &str, password: &str) -> Candidate {
        Candidate {
            credential: Credential::basic(user, password),
            origin: Origin::CommandLine,
        }
    }

    #[test]
    fn only_tokens_that_say_so_end() {
        let jwt = |body: &str| {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            format!("{}.{}.sig", part(r#"{"alg":"RS256"}"#), part(body))
        };
        let amazon =
            STANDARD.encode(r#"{"payload":"x","type":"DATA_KEY","expiration":1700000000}"#);
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let written = Timestamp::from_second(1_600_000_000).unwrap();
        for (user, password, registry, want) in [
            (
                "00000000",
                jwt(r#"{"exp":1700000001}"#),
                "x.azurecr.io",
                Some(1_700_000_001),
            ),
            (
                "u",
                jwt(r#"{"exp":1700000001.5}"#),
                "r.test",
                Some(1_700_000_001),
            ),
            ("u", jwt(r#"{"sub":"x"}"#), "r.test", None),
            ("u", "a.b.c".to_owned(), "r.test", None),
            ("u", "hunter2".to_owned(), "r.test", None),
            ("AWS", amazon.clone(), ecr, Some(1_700_000_000)),
            ("u", amazon, "r.test", None),
            ("AWS", "opaque".to_owned(), ecr, Some(1_600_043_200)),
            ("AWS", "opaque".to_owned(), "r.test", None),
        ] {
            let found = of(&candidate(user, &password), registry, Some(written));
            assert_eq!(
                found.map(|one| one.at.as_second()),
                want,
                "{user} {registry}"
            );
        }
        assert_eq!(of(&candidate("AWS", "opaque"), ecr, None), None);
    }

    #[test]
    fn the_words_hold_a_time_and_no_value() {
        let expiry = Expiry {
            at: Timestamp::from_second(1_700_000_000).unwrap(),
            by: "its token says so",
        };
        let now = Timestamp::from_second(1_700_000_001).unwrap();
        assert_eq!(
            expiry.words(now),
            "expired at 2023-11-14T22:13:20Z (its token says so)"
        );
        assert!(
            expiry
                .words(Timestamp::UNIX_EPOCH)
                .starts_with("expires at")
        );
    }
}
