//! `WWW-Authenticate`: any number of challenges in any number of headers, hostile until read.

use http::{HeaderMap, header};
use towline_keyring::redact;

use crate::facts::ChallengeFact;

/// One challenge: scheme in lower case, parameters by name in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

const MOST_HEADER: usize = 16 << 10;
const MOST_CHALLENGES: usize = 8;
const MOST_PARAMETERS: usize = 16;

impl Challenge {
    /// A parameter's value, where it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// As a fact: bounded, printable, the realm without its query.
    pub(crate) fn fact(&self) -> ChallengeFact {
        let text = |name| self.get(name).map(printable);
        ChallengeFact {
            scheme: match self.scheme.as_str() {
                "bearer" => "Bearer".to_owned(),
                "basic" => "Basic".to_owned(),
                other => printable(other),
            },
            realm: self
                .get("realm")
                .map(|realm| printable(&redact::url(realm))),
            service: text("service"),
            scope: text("scope"),
            error: text("error"),
        }
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}

/// Reads all challenges of an answer. What does not parse is left out; what parsed before it stays.
pub(crate) fn read(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .take(MOST_CHALLENGES)
    {
        let text = String::from_utf8_lossy(value.as_bytes());
        if text.len() <= MOST_HEADER {
            read_one(&text, &mut found);
        }
    }
    found.truncate(MOST_CHALLENGES);
    found
}

/// One header value: `scheme [token68 | name=value {, name=value}] {, scheme ...}`.
fn read_one(text: &str, found: &mut Vec<Challenge>) {
    let mut rest = Cursor(text);
    while found.len() < MOST_CHALLENGES {
        rest.skip_separators();
        let Some(word) = rest.token() else { return };
        let mut challenge = Challenge {
            scheme: word.to_ascii_lowercase(),
            parameters: Vec::new(),
        };
        if !rest.starts_with_space() && !rest.0.is_empty() && !rest.0.starts_with(',') {
            return;
        }
        rest.skip_space();
        while let Some((name, value)) = rest.parameter() {
            let name = name.to_ascii_lowercase();
            let known = challenge.parameters.iter().any(|(k, _)| *k == name);
            if !known && challenge.parameters.len() < MOST_PARAMETERS {
                challenge.parameters.push((name, value));
            }
            rest.skip_separators();
        }
        rest.skip_token68();
        found.push(challenge);
    }
}

#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn starts_with_space(self) -> bool {
        self.0.starts_with([' ', '\t'])
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn skip_separators(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        if end == 0 {
            return None;
        }
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(token)
    }

    /// `name=value` or `name="value"`; leaves the cursor where it was if that is not next.
    fn parameter(&mut self) -> Option<(&'a str, String)> {
        let mut ahead = *self;
        let name = ahead.token()?;
        ahead.skip_space();
        ahead.0 = ahead.0.strip_prefix('=')?;
        ahead.skip_space();
        let value = if ahead.0.starts_with('"') {
            ahead.quoted()?
        } else {
            // Servers forget the quotes around URLs: everything up to the next comma or space counts.
            let end = ahead.0.find([',', ' ', '\t']).unwrap_or(ahead.0.len());
            let (value, rest) = ahead.0.split_at(end);
            ahead.0 = rest;
            value.to_owned()
        };
        *self = ahead;
        Some((name, value))
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.0.char_indices().skip(1) {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                c => value.push(c),
            }
        }
        None
    }

    /// A bare value such as `Negotiate YII=`: it has no names and is of no use here.
    fn skip_token68(&mut self) {
        let end = self.0.find(',').unwrap_or(self.0.len());
        let word = self.0[..end].trim();
        let token68 = !word.is_empty()
            && !word.contains(' ')
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b))
            && word.contains(['=', '/', '+']);
        if token68 {
            self.0 = &self.0[end..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(values: &[&str]) -> Vec<(String, Vec<(String, String)>)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_str(value).unwrap(),
            );
        }
        read(&headers)
            .into_iter()
            .map(|challenge| (challenge.scheme, challenge.parameters))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn the_usual() {
        assert_eq!(
            of(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ]),
            [(
                "bearer".to_owned(),
                pairs(&[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push"),
                ])
            )]
        );
    }

    #[test]
    fn several_in_one_header_or_in_two() {
        let basic = ("basic".to_owned(), pairs(&[("realm", "r, x")]));
        let bearer = (
            "bearer".to_owned(),
            pairs(&[("realm", "https://t/"), ("service", "s")]),
        );
        for values in [
            &[r#"Basic realm="r, x", Bearer realm="https://t/", service=s"#][..],
            &[
                r#"BASIC realm="r, x""#,
                r#"Bearer  realm = "https://t/" ,, service=s,"#,
            ][..],
        ] {
            assert_eq!(of(values), [basic.clone(), bearer.clone()], "{values:?}");
        }
        assert_eq!(
            of(&[r#"Negotiate, Bearer realm="https://t/",service="s", Basic realm="r, x""#]),
            [("negotiate".to_owned(), vec![]), bearer, basic.clone()]
        );
        assert_eq!(
            of(&[r#"Negotiate YII/a==, Basic realm="r, x""#]),
            [("negotiate".to_owned(), vec![]), basic]
        );
    }

    #[test]
    fn hostile_ones_are_bounded_and_do_not_panic() {
        assert_eq!(
            of(&[r#"Bearer realm="a\"b\\c""#]),
            [("bearer".to_owned(), pairs(&[("realm", r#"a"b\c"#)]))]
        );
        assert_eq!(
            of(&[r#"Bearer realm="unterminated"#]),
            [("bearer".to_owned(), vec![])]
        );
        assert_eq!(
            of(&["Bearer realm=a,realm=b"]),
            [("bearer".to_owned(), pairs(&[("realm", "a")]))]
        );
        assert_eq!(of(&["", "=", ",,,", "\"x\""]), []);
        let many = "Basic a=b, ".repeat(1000);
        assert_eq!(of(&[&many]).len(), MOST_CHALLENGES);
        let long = format!("Bearer realm=\"{}\"", "x".repeat(MOST_HEADER));
        assert_eq!(of(&[&long]), []);
        let wide: Vec<String> = (0..1000).map(|i| format!("p{i}=v")).collect();
        let wide = wide.join(",");
        assert_eq!(of(&[&format!("Bearer {wide}")])[0].1.len(), MOST_PARAMETERS);
    }

    #[test]
    fn any_mixture_of_the_grammars_parts_is_read_within_bounds() {
        const PARTS: [&str; 16] = [
            "Bearer", "basic", " ", ",", "=", "\"", "\\", "realm", "\t", "x", "/", "a=b", "\"c\"",
            "ü", "==", "-",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let text: String = (0..random.usize(0..40))
                .map(|_| *random.choice(&PARTS).unwrap_or(&""))
                .collect();
            let mut found = Vec::new();
            read_one(&text, &mut found);
            assert!(found.len() <= MOST_CHALLENGES, "{text}");
            for challenge in found {
                assert!(
                    !challenge.scheme.is_empty() && challenge.parameters.len() <= MOST_PARAMETERS,
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn facts_hold_no_query() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(
                r#"Bearer realm="https://u:canary@t.example/token?sig=canary",service="s""#,
            ),
        );
        let facts: Vec<_> = read(&headers).iter().map(Challenge::fact).collect();
        let text = serde_json::to_string(&facts).unwrap();
        assert!(!text.contains("canary"), "{text}");
    }
}
