//! What to do about a 401: a plain decision on what was carried, what is asked for, and what there is to offer.

use towline_keyring::Credential;

use crate::challenge::Challenge;

/// What the refused request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// Nothing.
    Nothing,
    /// User name and password.
    Basic,
    /// A token; `fresh` if it was made for this very request.
    Token { fresh: bool },
    /// A token from the credential itself.
    Given,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the token service that this challenge names.
    Token(Challenge),
    /// The token may have run out: get another one.
    Refresh,
    /// Offer user name and password.
    Basic,
    /// The answer names no way to log in: ask `/v2/` for one.
    Ping,
    /// It stays a no.
    Denied,
}

/// Decides. `pinged` tells whether `/v2/` was asked already; `scope` is what the token carried was asked for.
pub(crate) fn decide(
    carried: Carried,
    challenges: &[Challenge],
    credential: &Credential,
    scope: Option<&str>,
    pinged: bool,
) -> Next {
    let offered = |scheme: &str| challenges.iter().find(|one| one.scheme == scheme);
    let has_password = matches!(credential, Credential::Basic { .. });
    let bearer = offered("bearer").filter(|challenge| challenge.get("realm").is_some());
    match carried {
        Carried::Nothing => match (bearer, offered("basic")) {
            (Some(bearer), _) => Next::Token(bearer.clone()),
            (None, Some(_)) if has_password => Next::Basic,
            (None, None) if !pinged => Next::Ping,
            _ => Next::Denied,
        },
        Carried::Token { fresh: false } => Next::Refresh,
        Carried::Token { fresh: true } => match bearer {
            Some(bearer) => match bearer.get("scope") {
                // Another scope than the one asked for first: the challenge of this request knows better.
                Some(wanted) if Some(wanted) != scope && !is_placeholder(wanted) => {
                    Next::Token(bearer.clone())
                }
                _ => Next::Denied,
            },
            None if has_password && offered("basic").is_some() => Next::Basic,
            None => Next::Denied,
        },
        Carried::Basic | Carried::Given => Next::Denied,
    }
}

/// The scope to ask for: the challenge's, unless it has none or only a placeholder.
pub(crate) fn scope(challenge: &Challenge, repository: &str, actions: &str) -> String {
    match challenge.get("scope") {
        Some(scope) if scope.len() <= 1024 && !is_placeholder(scope) => scope.to_owned(),
        _ => format!("repository:{repository}:{actions}"),
    }
}

/// GitHub's `/v2/` names a repository that nobody has.
fn is_placeholder(scope: &str) -> bool {
    scope.starts_with("repository:user/image:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, header};

    fn challenges(values: &[&str]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_str(value).unwrap(),
            );
        }
        crate::challenge::read(&headers)
    }

    const BEARER: &str = r#"Bearer realm="https://t/",service="s",scope="repository:a:pull""#;
    const BASIC: &str = r#"Basic realm="r""#;

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn the_decision_table() {
        let user = Credential::basic("bob", "x");
        let nobody = Credential::Anonymous;
        let first = |values: &[&str]| Next::Token(challenges(values).remove(0));
        let fresh = Carried::Token { fresh: true };
        for (carried, values, credential, scope, pinged, want) in [
            (
                Carried::Nothing,
                &[BEARER][..],
                &nobody,
                None,
                false,
                first(&[BEARER]),
            ),
            (
                Carried::Nothing,
                &[BASIC, BEARER],
                &user,
                None,
                false,
                first(&[BEARER]),
            ),
            (Carried::Nothing, &[BASIC], &user, None, false, Next::Basic),
            (
                Carried::Nothing,
                &[BASIC],
                &nobody,
                None,
                false,
                Next::Denied,
            ),
            (Carried::Nothing, &[], &nobody, None, false, Next::Ping),
            (Carried::Nothing, &[], &nobody, None, true, Next::Denied),
            (
                Carried::Nothing,
                &["Bearer service=s"],
                &user,
                None,
                true,
                Next::Denied,
            ),
            (
                Carried::Token { fresh: false },
                &[BEARER],
                &user,
                Some("repository:a:pull"),
                false,
                Next::Refresh,
            ),
            (
                fresh,
                &[BEARER],
                &user,
                Some("repository:a:pull"),
                false,
                Next::Denied,
            ),
            (
                fresh,
                &[BEARER],
                &user,
                Some("repository:b:pull"),
                false,
                first(&[BEARER]),
            ),
            (
                fresh,
                &[BASIC],
                &user,
                Some("repository:a:pull"),
                false,
                Next::Basic,
            ),
            (
                fresh,
                &[BASIC],
                &nobody,
                Some("repository:a:pull"),
                false,
                Next::Denied,
            ),
            (Carried::Basic, &[BASIC], &user, None, false, Next::Denied),
            (Carried::Given, &[BEARER], &user, None, false, Next::Denied),
        ] {
            let got = decide(carried, &challenges(values), credential, scope, pinged);
            assert_eq!(got, want, "{carried:?} {values:?} {credential}");
        }
    }

    #[test]
    fn scopes() {
        let of = |value: &str| scope(&challenges(&[value])[0], "team/app", "pull");
        assert_eq!(of(BEARER), "repository:a:pull");
        assert_eq!(of("Bearer realm=x"), "repository:team/app:pull");
        assert_eq!(
            of(r#"Bearer realm=x,scope="repository:user/image:pull""#),
            "repository:team/app:pull"
        );
    }
}
