//! What an error answer says, in whatever form: distribution errors, a token service's JSON, storage XML, HTML.

use http::StatusCode;
use serde::Deserialize;
use towline_cause::{CauseName, Step};
use towline_keyring::{Credential, redact};

use crate::page::is_web_page;

/// An error answer as a person needs it. All texts are printable, bounded and without secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Codes in order: `MANIFEST_UNKNOWN`, `NoSuchKey`, ...
    pub(crate) codes: Vec<String>,
    /// The first message.
    pub(crate) message: String,
    /// Whether it is a web page.
    pub(crate) html: bool,
    /// What a pull-through cache says of its upstream.
    pub(crate) upstream: Option<Box<Upstream>>,
}

/// Why a pull-through cache did not get something, as it says it in the error's detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// How the cache calls its upstream.
    pub(crate) name: String,
    /// The upstream's cause.
    pub(crate) cause: CauseName,
    /// Where the cache's own pull stopped.
    pub(crate) step: Option<Step>,
    /// Scheme, host and port that failed.
    pub(crate) endpoint: Option<String>,
}

impl Upstream {
    fn read(detail: &serde_json::Value) -> Option<Self> {
        let text = |name: &str| detail.get(name)?.as_str();
        Some(Self {
            name: clean(text("upstream")?),
            cause: CauseName::parse(text("cause")?),
            step: text("step").and_then(Step::from_name),
            endpoint: text("endpoint").map(clean),
        })
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default, rename = "errors")]
    listed: Option<Vec<One>>,
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct One {
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    detail: Option<serde_json::Value>,
}

const MOST_CODES: usize = 4;
const MOST_MESSAGE: usize = 300;

impl Said {
    /// Reads the body of an error.
    pub(crate) fn read(content_type: &str, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let start = text.trim_start();
        if start.starts_with(['{', '[']) {
            return of_json(start).unwrap_or_else(|| Self::plain(start));
        }
        if content_type.starts_with("text/html") || is_web_page(start.as_bytes()) {
            return Self {
                html: true,
                message: between(start, "<title>", "</title>")
                    .map(clean)
                    .unwrap_or_default(),
                ..Self::default()
            };
        }
        if start.starts_with('<') {
            return Self {
                codes: between(start, "<Code>", "</Code>")
                    .map(clean)
                    .into_iter()
                    .collect(),
                message: between(start, "<Message>", "</Message>")
                    .map(clean)
                    .unwrap_or_default(),
                ..Self::default()
            };
        }
        Self::plain(start)
    }

    fn plain(text: &str) -> Self {
        Self {
            message: clean(text),
            ..Self::default()
        }
    }

    /// Takes out a secret that the server sent back. One of fewer than four bytes is not looked for: it would blot out words.
    pub(crate) fn hide(&mut self, secret: &str) {
        if secret.len() >= 4 {
            for text in self.codes.iter_mut().chain([&mut self.message]) {
                if text.contains(secret) {
                    *text = text.replace(secret, "[redacted]");
                }
            }
        }
    }

    /// Takes out what of a credential is secret.
    pub(crate) fn hide_credential(&mut self, credential: &Credential) {
        match credential {
            Credential::Anonymous => {}
            Credential::Basic {
                password: secret, ..
            }
            | Credential::IdentityToken(secret)
            | Credential::RegistryToken(secret) => self.hide(secret.expose()),
        }
    }

    /// Whether one of the codes is this one.
    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes
            .iter()
            .any(|known| known.eq_ignore_ascii_case(code))
    }

    /// Whether the message holds all of these words, in lower case.
    pub(crate) fn says(&self, words: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        words.iter().all(|word| message.contains(word))
    }

    /// `404 Not Found, MANIFEST_UNKNOWN: "manifest unknown"`.
    pub(crate) fn with_status(&self, status: StatusCode) -> String {
        let mut text = status.as_u16().to_string();
        if let Some(reason) = status.canonical_reason() {
            text.push(' ');
            text.push_str(reason);
        }
        if let Some(code) = self.codes.first() {
            text.push_str(", ");
            text.push_str(code);
        }
        if self.html {
            text.push_str(", a web page");
        }
        if !self.message.is_empty() {
            text.push_str(": \"");
            text.push_str(&self.message);
            text.push('"');
        }
        text
    }
}

fn of_json(text: &str) -> Option<Said> {
    let read: ErrorBody = serde_json::from_str(text).ok()?;
    let mut said = Said::default();
    for one in read.listed.unwrap_or_default().into_iter().take(MOST_CODES) {
        if let Some(code) = one.code {
            said.codes.push(clean(&word(&code)));
        }
        if let (None, Some(detail)) = (&said.upstream, &one.detail) {
            said.upstream = Upstream::read(detail).map(Box::new);
        }
        if let (true, Some(message)) = (said.message.is_empty(), one.message) {
            said.message = clean(&word(&message));
        }
    }
    if said.message.is_empty() {
        let spare = [
            read.error_description,
            read.message,
            read.details.map(|value| word(&value)),
        ];
        said.message = spare
            .into_iter()
            .flatten()
            .map(|text| clean(&text))
            .find(|text| !text.is_empty())
            .unwrap_or_default();
    }
    if let (true, Some(error)) = (said.codes.is_empty(), read.error) {
        said.codes.push(clean(&word(&error)));
    }
    said.codes.retain(|code| !code.is_empty());
    Some(said)
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(
        || match value {
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        },
        str::to_owned,
    )
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let find = |text: &str, what: &str| {
        text.as_bytes()
            .windows(what.len())
            .position(|window| window.eq_ignore_ascii_case(what.as_bytes()))
    };
    let start = find(text, open)? + open.len();
    let end = start + find(text.get(start..)?, close)?;
    text.get(start..end)
}

/// One line, printable, without secrets, bounded.
pub(crate) fn clean(text: &str) -> String {
    let cut: String = text.chars().take(4 * MOST_MESSAGE).collect();
    let words = redact::text(&cut);
    let mut line = String::new();
    let mut after_scheme = false;
    for word in words
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        // Servers quote the header that they did not like.
        let secret = after_scheme && word.len() >= 8 && !word.starts_with("realm=");
        after_scheme = ["bearer", "basic"]
            .iter()
            .any(|scheme| word.to_ascii_lowercase().ends_with(scheme));
        line.push_str(if secret { "[redacted]" } else { word });
    }
    let mut short: String = line.chars().take(MOST_MESSAGE).collect();
    if short.len() < line.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (content_type, body, codes, message, html) in [
            (
                "application/json",
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                vec!["MANIFEST_UNKNOWN"],
                "manifest unknown",
                false,
            ),
            (
                "application/json",
                r#"{"details":"incorrect username or password"}"#,
                vec![],
                "incorrect username or password",
                false,
            ),
            (
                "application/json",
                r#"{"error":"invalid_grant","error_description":"no"}"#,
                vec!["invalid_grant"],
                "no",
                false,
            ),
            (
                "application/json",
                r#"{"errors":null,"message":"a\n\tb"}"#,
                vec![],
                "a b",
                false,
            ),
            (
                "application/xml",
                "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
                vec!["AccessDenied"],
                "Request has expired",
                false,
            ),
            (
                "text/html; charset=utf-8",
                "<html><head><TITLE>Sign in</TITLE></head>",
                vec![],
                "Sign in",
                true,
            ),
            (
                "text/plain",
                "404 page not found\n",
                vec![],
                "404 page not found",
                false,
            ),
            ("application/json", "{broken", vec![], "{broken", false),
            ("", "", vec![], "", false),
        ] {
            let said = Said::read(content_type, body.as_bytes());
            assert_eq!(
                (said.codes, said.message.as_str(), said.html),
                (
                    codes.into_iter().map(str::to_owned).collect(),
                    message,
                    html
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn what_a_cache_says_of_its_upstream() {
        let body = r#"{"errors":[{"code":"UNAVAILABLE","message":"m","detail":{"upstream":"docker.io","cause":"DnsNameNotFound","step":"dns","endpoint":"https://registry-1.docker.io"}}]}"#;
        let upstream = Said::read("application/json", body.as_bytes())
            .upstream
            .unwrap();
        assert_eq!(upstream.cause.as_str(), "DnsNameNotFound");
        assert_eq!(upstream.step, Some(Step::Dns));
        assert_eq!(
            (upstream.name.as_str(), upstream.endpoint.as_deref()),
            ("docker.io", Some("https://registry-1.docker.io"))
        );
        for detail in [
            "null",
            "[]",
            "\"x\"",
            r#"{"cause":"x"}"#,
            r#"{"cause":1,"upstream":"x"}"#,
        ] {
            let body = format!(r#"{{"errors":[{{"code":"X","detail":{detail}}}]}}"#);
            assert_eq!(
                Said::read("application/json", body.as_bytes()).upstream,
                None,
                "{detail}"
            );
        }
    }

    #[test]
    fn texts_are_bounded_and_printable() {
        let said = Said::read(
            "text/plain",
            format!("\u{1b}[31m{}", "x".repeat(5000)).as_bytes(),
        );
        assert!(
            said.message.len() <= MOST_MESSAGE + 3,
            "{}",
            said.message.len()
        );
        assert!(!said.message.contains('\u{1b}'));
    }
}
