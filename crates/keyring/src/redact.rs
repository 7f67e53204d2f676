//! Removal of what is secret from what is about to be printed: URLs and headers, by allow-list.

/// Query parameters that say nothing secret; every other one loses its value.
const PLAIN_PARAMETERS: &[&str] = &[
    "ns",
    "n",
    "last",
    "service",
    "scope",
    "digest",
    "mount",
    "from",
    "artifactType",
    "account",
];

/// Headers whose value may be printed, in lower case.
const PLAIN_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-ratelimit-source",
    "etag",
    "host",
    "last-modified",
    "oci-subject",
    "range",
    "ratelimit-limit",
    "ratelimit-remaining",
    "retry-after",
    "server",
    "traceparent",
    "transfer-encoding",
    "user-agent",
    "via",
    "warning",
    "www-authenticate",
    "x-towline-attempt",
];

/// A URL without user information and with every query value removed that is not known to be harmless.
///
/// Reads any text leniently: what has no scheme is taken as host and path. `https://bob:pw@h/p?X-Sig=1&ns=a` becomes
/// `https://h/p?X-Sig=[redacted]&ns=a`. A fragment is dropped.
pub fn url(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.split('#').next().unwrap_or_default();
    let (before, query) = rest
        .split_once('?')
        .map_or((rest, None), |(before, query)| (before, Some(query)));
    let (authority, path) = before
        .find('/')
        .map_or((before, ""), |at| before.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let mut out = String::with_capacity(url.len());
    if !scheme.is_empty() {
        out.push_str(scheme);
        out.push_str("://");
    }
    out.push_str(host);
    out.push_str(path);
    if let Some(query) = query {
        let parameters: Vec<String> = query.split('&').map(parameter).collect();
        out.push('?');
        out.push_str(&parameters.join("&"));
    }
    out
}

/// Scheme, host and port alone: what an endpoint is called in a [`towline_cause::Failure`].
pub fn endpoint(url: &str) -> String {
    let cut = self::url(url);
    let start = cut.find("://").map_or(0, |at| at + 3);
    let end = cut[start..]
        .find(['/', '?'])
        .map_or(cut.len(), |at| start + at);
    cut[..end].to_owned()
}

fn parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if !PLAIN_PARAMETERS.contains(&name) => format!("{name}=[redacted]"),
        Some(_) => pair.to_owned(),
        // A parameter without a name may be the secret itself.
        None if PLAIN_PARAMETERS.contains(&pair) || pair.is_empty() => pair.to_owned(),
        None => "[redacted]".to_owned(),
    }
}

/// A header's value, or `[redacted]` for a header that is not known to be harmless. `Location` is redacted as a URL.
pub fn header(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name == "location" {
        return url(value);
    }
    if PLAIN_HEADERS.contains(&name.as_str()) {
        value.to_owned()
    } else {
        "[redacted]".to_owned()
    }
}

/// True when the header's value may be printed as it is.
pub fn header_is_plain(name: &str) -> bool {
    PLAIN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
}

/// A text in which every URL (`http://` and `https://`) went through [`url`].
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = next_url(rest) {
        let (before, from) = rest.split_at(at);
        let end = from
            .find(|c: char| c.is_whitespace() || "\"'<>`".contains(c))
            .unwrap_or(from.len());
        out.push_str(before);
        let (found, after) = from.split_at(end);
        // Punctuation that closes the sentence is not part of the URL.
        let kept = found.trim_end_matches([':', ',', ';', ')', ']']);
        out.push_str(&url(kept));
        out.push_str(&found[kept.len()..]);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn next_url(text: &str) -> Option<usize> {
    match (text.find("http://"), text.find("https://")) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_user_information_and_unknown_query_values() {
        for (given, kept) in [
            ("https://reg.io/v2/", "https://reg.io/v2/"),
            ("https://bob:pw@reg.io:5000/v2/", "https://reg.io:5000/v2/"),
            ("https://bob@x:pw@reg.io/", "https://reg.io/"),
            ("reg.io/a@sha256:00", "reg.io/a@sha256:00"),
            (
                "https://s3.io/b?X-Amz-Signature=abc&ns=docker.io",
                "https://s3.io/b?X-Amz-Signature=[redacted]&ns=docker.io",
            ),
            ("https://s3.io/b?abc", "https://s3.io/b?[redacted]"),
            (
                "https://h/t?service=r&scope=repository:a:pull#frag",
                "https://h/t?service=r&scope=repository:a:pull",
            ),
            ("", ""),
        ] {
            assert_eq!(url(given), kept);
        }
        assert_eq!(
            endpoint("https://bob:pw@reg.io:5000/v2/?a=b"),
            "https://reg.io:5000"
        );
        assert_eq!(endpoint("https://reg.io?a=b"), "https://reg.io");
    }

    #[test]
    fn texts_lose_what_their_urls_hold() {
        assert_eq!(
            text(r#"Get "https://u:p@h/x?sig=1": EOF, then http://a/b?token=2: bad"#),
            r#"Get "https://h/x?sig=[redacted]": EOF, then http://a/b?token=[redacted]: bad"#
        );
    }

    #[test]
    fn headers_are_allowed_by_name() {
        assert_eq!(header("Content-Type", "text/html"), "text/html");
        assert_eq!(header("Authorization", "Bearer x"), "[redacted]");
        assert_eq!(header("Set-Cookie", "x"), "[redacted]");
        assert_eq!(
            header("Location", "https://s3/b?sig=x"),
            "https://s3/b?sig=[redacted]"
        );
        assert!(!header_is_plain("X-Auth-Token"));
    }
}
