//! Label and field selectors: parsing and matching.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::kinds::{Kind, field_value};

/// Terms of one selector at most.
const MAX_TERMS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Greater(i64),
    Less(i64),
}

/// A parsed label selector; all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<(String, Operator)>);

/// A parsed field selector; all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<(String, bool, String)>);

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    terms.retain(|term| !term.is_empty());
    terms
}

fn values(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(
        inner
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect(),
    )
}

fn label_term(term: &str) -> Option<(String, Operator)> {
    let key = |text: &str| {
        let text = text.trim();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        (!text.is_empty() && text.len() <= 317 && text.chars().all(good)).then(|| text.to_owned())
    };
    if let Some(missing) = term.strip_prefix('!') {
        return Some((key(missing)?, Operator::Missing));
    }
    if let Some((left, right)) = term.split_once("!=") {
        return Some((key(left)?, Operator::NotIn(vec![right.trim().to_owned()])));
    }
    if let Some((left, right)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some((key(left)?, Operator::In(vec![right.trim().to_owned()])));
    }
    if let Some((left, right)) = term.split_once(" notin ").or_else(|| {
        term.split_once(" notin(").map(|(l, _)| {
            let at = term.find('(').unwrap_or(0);
            (l, &term[at..])
        })
    }) {
        return Some((key(left)?, Operator::NotIn(values(right)?)));
    }
    if let Some((left, right)) = term.split_once(" in ").or_else(|| {
        term.split_once(" in(").map(|(l, _)| {
            let at = term.find('(').unwrap_or(0);
            (l, &term[at..])
        })
    }) {
        return Some((key(left)?, Operator::In(values(right)?)));
    }
    if let Some((left, right)) = term.split_once('>') {
        return Some((key(left)?, Operator::Greater(right.trim().parse().ok()?)));
    }
    if let Some((left, right)) = term.split_once('<') {
        return Some((key(left)?, Operator::Less(right.trim().parse().ok()?)));
    }
    Some((key(term)?, Operator::Exists))
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let terms = split_terms(text);
        if terms.len() > MAX_TERMS {
            return Err(ApiError::bad_request(
                "the label selector has too many terms",
            ));
        }
        let parsed: Option<Vec<_>> = terms.into_iter().map(label_term).collect();
        parsed
            .map(Self)
            .ok_or_else(|| ApiError::bad_request(format!("unable to parse requirement: {text:?}")))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|(key, operator)| {
            let value = labels
                .and_then(|labels| labels.get(key))
                .and_then(Value::as_str);
            match operator {
                Operator::In(wanted) => {
                    value.is_some_and(|value| wanted.iter().any(|one| one == value))
                }
                Operator::NotIn(refused) => {
                    value.is_none_or(|value| refused.iter().all(|one| one != value))
                }
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::Greater(bound) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v > *bound),
                Operator::Less(bound) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v < *bound),
            }
        })
    }
}

impl FieldSelector {
    /// Parses for a kind; a label that the kind does not have is an error.
    pub(crate) fn parse(kind: &Kind, text: &str) -> ApiResult<Self> {
        let mut terms = Vec::new();
        for term in text
            .split(',')
            .map(str::trim)
            .filter(|term| !term.is_empty())
        {
            let (label, equal, value) = if let Some((label, value)) = term.split_once("!=") {
                (label, false, value)
            } else if let Some((label, value)) =
                term.split_once("==").or_else(|| term.split_once('='))
            {
                (label, true, value)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            if field_value(kind, label, &Value::Null).is_none() {
                return Err(ApiError::bad_request(format!(
                    "Unable to find \"{}\" that match label selector \"\", field selector \"{text}\": \
                     field label not supported: {label}",
                    kind.kind
                )));
            }
            terms.push((label.to_owned(), equal, value.to_owned()));
            if terms.len() > MAX_TERMS {
                return Err(ApiError::bad_request(
                    "the field selector has too many terms",
                ));
            }
        }
        Ok(Self(terms))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with a stored object.
    pub(crate) fn matches(&self, kind: &Kind, stored: &Value) -> bool {
        self.0.iter().all(|(label, equal, wanted)| {
            field_value(kind, label, stored).is_some_and(|value| (value == *wanted) == *equal)
        })
    }

    /// The value that a label must equal, if the selector says so.
    pub(crate) fn required(&self, label: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, equal, _)| *equal && name == label)
            .map(|(_, _, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let object = json!({"metadata": {"labels": {"app": "web", "n": "5"}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("app in (a, web)", true),
            ("app notin (a,b)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("!x", true),
            ("n>4", true),
            ("n<4", false),
            ("app=web,n=5", true),
            ("app=web,n=6", false),
            ("app in (web),!x", true),
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches(&object),
                expected,
                "{text}"
            );
        }
        for text in ["a b", "=x", "app in web", "n>x"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors() {
        let pods = Kind::named("", "pods");
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"}});
        for (text, expected) in [
            ("metadata.name=p", true),
            ("metadata.name==q", false),
            ("spec.nodeName=n1,status.phase!=Succeeded", true),
            ("spec.host=n1", true),
            ("spec.hostNetwork=false", true),
            ("spec.nodeName!=", true),
            ("spec.nodeName=", false),
        ] {
            assert_eq!(
                FieldSelector::parse(pods, text)
                    .unwrap()
                    .matches(pods, &pod),
                expected,
                "{text}"
            );
        }
        let error = FieldSelector::parse(pods, "spec.bogus=1").unwrap_err();
        assert!(
            error
                .message
                .ends_with("field label not supported: spec.bogus"),
            "{}",
            error.message
        );
        assert_eq!(
            FieldSelector::parse(pods, "spec.nodeName=n1")
                .unwrap()
                .required("spec.nodeName"),
            Some("n1")
        );
    }
}
