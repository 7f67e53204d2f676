//! Rules: when, and what then.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

/// A rule of a [`Proxy`](super::Proxy).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which requests.
    #[serde(default)]
    pub when: Match,
    /// What happens to them.
    pub then: Fault,
}

impl Rule {
    /// A rule for every request whose path matches (`*` stands for any characters).
    pub fn on(path: &str, then: Fault) -> Self {
        Self {
            when: Match {
                path: Some(path.to_owned()),
                ..Match::default()
            },
            then,
        }
    }

    /// Restricts the rule to a method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.when.methods.push(method.to_owned());
        self
    }

    /// Restricts the rule to requests with the login of this user.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.when.user = Some(name.to_owned());
        self
    }

    /// Restricts the rule to some of the requests that match.
    #[must_use]
    pub fn nth(mut self, nth: Nth) -> Self {
        self.when.nth = nth;
        self
    }
}

/// Which requests a rule is for; an empty one is for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    /// Methods; none means any.
    pub methods: Vec<String>,
    /// The path without the query; `*` stands for any characters, also `/`.
    pub path: Option<String>,
    /// Whether the request must bear `Authorization` (true) or must not (false).
    pub authorized: Option<bool>,
    /// The user that the request's Basic login must name.
    pub user: Option<String>,
    /// Whether the request must ask for a range (true) or must not (false).
    pub ranged: Option<bool>,
    /// Which of the requests that match otherwise.
    pub nth: Nth,
}

/// Which of the matching requests, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Nth {
    /// Every one.
    #[default]
    Every,
    /// The first so many.
    First(u64),
    /// This one alone.
    Only(u64),
    /// From this one on.
    From(u64),
}

impl Nth {
    /// Whether the `count`th matching request is meant.
    pub fn covers(self, count: u64) -> bool {
        match self {
            Self::Every => true,
            Self::First(n) => count <= n,
            Self::Only(n) => count == n,
            Self::From(n) => count >= n,
        }
    }
}

impl Match {
    /// Whether a request is meant, `nth` aside.
    pub fn covers(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let agrees = |wanted: Option<bool>, name| {
            wanted.is_none_or(|wanted| wanted == headers.contains_key(name))
        };
        (self.methods.is_empty() || self.methods.iter().any(|wanted| wanted == method.as_str()))
            && self
                .path
                .as_deref()
                .is_none_or(|pattern| glob(pattern, path))
            && agrees(self.authorized, header::AUTHORIZATION)
            && agrees(self.ranged, header::RANGE)
            && self.user.as_ref().is_none_or(|wanted| {
                let login = crate::token::basic(headers.get(header::AUTHORIZATION));
                login.is_some_and(|(user, _)| user == *wanted)
            })
    }
}

/// Whether a text matches a pattern in which `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// What happens to a request. Sizes are in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// It passes: shields requests from later rules.
    Pass,
    /// It is answered here.
    Answer {
        /// The status.
        status: u16,
        /// Headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// It is answered with an error document of the distribution API.
    Error {
        /// The status.
        status: u16,
        /// The code, such as `DENIED`.
        code: String,
        /// The message.
        message: String,
    },
    /// The connection is closed without an answer.
    Close,
    /// The connection is reset without an answer.
    Reset,
    /// No answer ever comes.
    Stall,
    /// The answer comes later.
    Delay {
        /// How much later.
        millis: u64,
    },
    /// The body ends early by a close.
    Truncate {
        /// Bytes that still pass.
        after: u64,
    },
    /// The body ends early by a reset.
    ResetBody {
        /// Bytes that still pass.
        after: u64,
    },
    /// The body stops coming.
    StallBody {
        /// Bytes that still pass.
        after: u64,
    },
    /// The body comes slowly.
    Trickle {
        /// Bytes at a time.
        bytes: usize,
        /// The pause between.
        every_millis: u64,
    },
    /// One byte of the body is changed.
    Corrupt {
        /// Its place.
        at: u64,
    },
    /// Bytes follow the body; the stated length is that of the whole.
    Append {
        /// The bytes.
        text: String,
    },
    /// Blanks follow the body; the stated length is that of the whole.
    Pad {
        /// How many.
        bytes: usize,
    },
    /// It is redirected; `{path}` in the location stands for its path and query.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// An HTML page of a captive portal with status 200.
    HtmlPage,
    /// 429 with the body that Docker Hub sends.
    RateLimit {
        /// The value of `Retry-After`, if any.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Headers of the answer are set or, when empty, removed.
    Headers {
        /// Names and values.
        set: BTreeMap<String, String>,
    },
    /// The range is not passed on: the whole comes with status 200.
    IgnoreRange,
    /// `Docker-Content-Digest` names something else.
    WrongDigest,
    /// The manifest is one of schema 1.
    Schema1,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("/v2/", "/v2/", true),
            ("/v2/", "/v2/x", false),
            ("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:1", true),
            ("/v2/*/blobs/*", "/v2/a/b/manifests/1", false),
            ("*", "", true),
            ("*/manifests/v1", "/v2/a/manifests/v1", true),
            ("*/manifests/v1", "/v2/a/manifests/v11", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_match_reads_method_headers_and_count() {
        let rule = Rule::on("/v2/*", Fault::Close)
            .method("GET")
            .nth(Nth::Only(2));
        let mut headers = HeaderMap::new();
        assert!(rule.when.covers(&Method::GET, "/v2/", &headers));
        assert!(!rule.when.covers(&Method::HEAD, "/v2/", &headers));
        let ranged = Match {
            ranged: Some(true),
            ..Match::default()
        };
        assert!(!ranged.covers(&Method::GET, "/", &headers));
        headers.insert(header::RANGE, "bytes=1-".parse().unwrap());
        assert!(ranged.covers(&Method::GET, "/", &headers));
        assert_eq!(
            [1, 2, 3].map(|n| Nth::Only(2).covers(n)),
            [false, true, false]
        );
        assert_eq!(
            [1, 2, 3].map(|n| Nth::From(2).covers(n)),
            [false, true, true]
        );
        assert_eq!(
            [1, 2, 3].map(|n| Nth::First(2).covers(n)),
            [true, true, false]
        );
    }

    #[test]
    fn rules_are_data() {
        let text = r#"{"when":{"path":"/v2/*","nth":{"first":1}},"then":{"rateLimit":{"retryAfter":"2"}}}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(
            rule.then,
            Fault::RateLimit {
                retry_after: Some("2".to_owned())
            }
        );
        assert_eq!(rule.when.nth, Nth::First(1));
    }
}
