//! Which names objects may have.

use crate::error::{ApiError, ApiResult, FieldCause};
use crate::kinds::Kind;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= 63
        && bytes.first().is_some_and(|b| inner(*b))
        && bytes.last().is_some_and(|b| inner(*b))
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_label(part) || (part.len() > 63 && is_long_label(part)))
}

/// Parts of a subdomain have no length limit of their own.
fn is_long_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| inner(*b))
        && bytes.last().is_some_and(|b| inner(*b))
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

/// Checks the name of a new object.
pub(crate) fn name(kind: &Kind, name: &str) -> ApiResult<()> {
    let (good, rule) = match (kind.group, kind.plural) {
        ("", "namespaces" | "services") => (is_label(name), LABEL),
        ("rbac.authorization.k8s.io", _) => {
            let bad = name.is_empty()
                || name == "."
                || name == ".."
                || name.contains(['/', '%'])
                || name.len() > 253;
            (!bad, "may not contain '/' or '%'")
        }
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if good {
        return Ok(());
    }
    let rule = if name.len() > 253 {
        "must be no more than 253 bytes"
    } else {
        rule
    };
    let cause = FieldCause {
        reason: "FieldValueInvalid",
        field: "metadata.name".to_owned(),
        message: format!("Invalid value: \"{name}\": {rule}"),
    };
    Err(ApiError::invalid(kind, name, &[cause]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_per_kind() {
        let (pods, namespaces) = (Kind::named("", "pods"), Kind::named("", "namespaces"));
        let roles = Kind::named("rbac.authorization.k8s.io", "clusterroles");
        for (kind, text, good) in [
            (pods, "a.b-c.1", true),
            (pods, "A", false),
            (pods, "-a", false),
            (pods, "a..b", false),
            (pods, "", false),
            (pods, "a/b", false),
            (namespaces, "a-b", true),
            (namespaces, "a.b", false),
            (roles, "system:x", true),
            (roles, "a/b", false),
        ] {
            assert_eq!(name(kind, text).is_ok(), good, "{} {text}", kind.plural);
        }
        assert!(name(pods, &"a".repeat(253)).is_ok());
        assert!(name(pods, &"a".repeat(254)).is_err());
    }
}
