//! The fixed suffix by which a runtime names the cause inside an error text.
//!
//! A stock kubelet drops the typed details of a gRPC error and keeps its text. So the text ends with
//! ` [towline: cause=TagNotFound step=resolve endpoint=http://127.0.0.1:5000]`, which is read back by whoever sees the text.

use crate::{Cause, CauseName, Failure, Step};

const OPEN: &str = "[towline: ";

/// What a suffix holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix {
    /// The cause, known to this version or not.
    pub cause: CauseName,
    /// The step, where it is one of [`Step`].
    pub step: Option<Step>,
    /// Scheme, host and port of the endpoint that failed.
    pub endpoint: Option<String>,
}

/// The suffix for a cause, without a leading space.
///
/// An endpoint that holds white space or brackets (no real one does) is left out, so that the suffix always reads back.
pub fn render(cause: Cause, step: Step, endpoint: Option<&str>) -> String {
    let endpoint = endpoint.filter(|e| {
        !e.is_empty() && !e.contains(|c: char| c.is_whitespace() || c == ']' || c == '[')
    });
    match endpoint {
        Some(endpoint) => format!("{OPEN}cause={cause} step={step} endpoint={endpoint}]"),
        None => format!("{OPEN}cause={cause} step={step}]"),
    }
}

/// The suffix for a failure.
pub fn of(failure: &Failure) -> String {
    render(failure.cause(), failure.step(), failure.endpoint())
}

/// Finds the last suffix in a text. `None` where there is none or where it is cut.
///
/// The last one counts: an aggregate of several attempts lists them in order.
pub fn parse(text: &str) -> Option<Suffix> {
    let start = text.rfind(OPEN)? + OPEN.len();
    let inner = &text[start..start + text[start..].find(']')?];
    let mut suffix = Suffix {
        cause: CauseName::Known(Cause::Unknown),
        step: None,
        endpoint: None,
    };
    let mut named = false;
    for pair in inner.split(' ') {
        match pair.split_once('=') {
            Some(("cause", value)) => {
                suffix.cause = CauseName::parse(value);
                named = true;
            }
            Some(("step", value)) => suffix.step = Step::from_name(value),
            Some(("endpoint", value)) => suffix.endpoint = Some(value.to_owned()),
            _ => {}
        }
    }
    named.then_some(suffix)
}

/// The text for people: without the suffixes, and without the space before each.
pub fn without(text: &str) -> String {
    let mut rest = text;
    let mut shown = String::new();
    while let Some((before, from)) = rest.split_once(OPEN) {
        let Some((_, after)) = from.split_once(']') else {
            break;
        };
        shown.push_str(before.trim_end_matches(' '));
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        for cause in Cause::ALL {
            for endpoint in [None, Some("https://registry.example:5000")] {
                let text = format!("failed to pull: {}", render(cause, Step::Tls, endpoint));
                let suffix = parse(&text).unwrap();
                assert_eq!(suffix.cause.cause(), cause);
                assert_eq!(suffix.step, Some(Step::Tls));
                assert_eq!(suffix.endpoint.as_deref(), endpoint);
            }
        }
    }

    #[test]
    fn a_cut_or_foreign_text_has_none() {
        for text in [
            "",
            "[towline: ",
            "[towline: cause=TagNotFound step=res",
            "[towline: hello]",
            "cause=TagNotFound",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_odd_endpoint_is_left_out() {
        assert_eq!(
            render(Cause::DnsFailed, Step::Dns, Some("a b")),
            "[towline: cause=DnsFailed step=dns]"
        );
    }

    #[test]
    fn people_read_it_without() {
        let suffix = render(Cause::TagNotFound, Step::Resolve, Some("http://r.io"));
        for (text, want) in [
            (format!("a: b {suffix}"), "a: b"),
            (format!("[a {suffix}, b {suffix}]"), "[a, b]"),
            ("a [towline: cause=".to_owned(), "a [towline: cause="),
            ("plain".to_owned(), "plain"),
        ] {
            assert_eq!(without(&text), want);
        }
    }
}
