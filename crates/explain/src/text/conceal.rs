//! What no answer may quote of a paste: the values of secrets, logins in headers, tokens. They are taken out before anything is read.
//!
//! Structure decides, as everywhere: a value is taken out for the key, the header or the object that it stands in. Words that a registry
//! or a runtime says (`Bearer realm=...`, `fetch oauth token: ...`) stay as they are.

/// What stands in the place of a value.
const GONE: &str = "[redacted]";

/// Keys whose value is a secret wherever it stands.
const KEYS: &[&str] = &[
    ".dockerconfigjson",
    ".dockercfg",
    "password",
    "passwd",
    "auth",
    "token",
    "access_token",
    "accesstoken",
    "refresh_token",
    "id_token",
    "identitytoken",
    "registrytoken",
    "client_secret",
    "client-key-data",
    "apikey",
    "api_key",
];

/// Headers that hold a login.
const HEADERS: &[&str] = &[
    "authorization:",
    "proxy-authorization:",
    "x-registry-auth:",
    "x-registry-config:",
    "cookie:",
    "set-cookie:",
];

/// The text without the values of secrets.
pub(super) fn concealed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut document = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            out.push_str(&of_document(&document));
            document.clear();
            out.push_str(line);
        } else {
            document.push_str(line);
        }
    }
    out.push_str(&of_document(&document));
    out
}

fn of_document(text: &str) -> String {
    let text = if holds_secret(text) {
        without_blocks(&without_objects(text))
    } else {
        text.to_owned()
    };
    let lines = text.split_inclusive('\n').map(of_line);
    lines.collect()
}

/// Whether a document is a Secret, or a list that may hold one.
fn holds_secret(text: &str) -> bool {
    let squeezed = |line: &str| -> String {
        let plain = line
            .chars()
            .filter(|c| !c.is_whitespace() && !"\"'\\".contains(*c));
        plain.collect()
    };
    text.lines().map(squeezed).any(|line| {
        let kind = line.trim_start_matches('-').trim_end_matches(',');
        kind == "kind:Secret" || kind.contains(",kind:Secret") || kind.contains("{kind:Secret")
    })
}

/// JSON objects under `data` and `stringData`, also where the JSON stands in a string of other JSON.
fn without_objects(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, quote)) = next_object(rest) {
        let open = at + rest[at..].find('{').unwrap_or_default();
        out.push_str(&rest[..=open]);
        rest = after_object(&rest[open + 1..], quote);
        out.push_str(quote);
        out.push_str(GONE);
        out.push_str(quote);
        out.push(':');
        out.push_str(quote);
        out.push_str(quote);
        out.push('}');
    }
    out.push_str(rest);
    out
}

/// The next `"data": {`, and how its quotes are written.
fn next_object(text: &str) -> Option<(usize, &'static str)> {
    let mut first: Option<(usize, &'static str)> = None;
    for (quote, key) in [
        ("\"", "\"data\""),
        ("\"", "\"stringData\""),
        ("\\\"", "\\\"data\\\""),
        ("\\\"", "\\\"stringData\\\""),
    ] {
        let found = text.match_indices(key).find(|(at, _)| {
            let after = text[at + key.len()..].trim_start();
            let after = after.strip_prefix(':').map(str::trim_start);
            let escaped = text[..*at].ends_with('\\');
            !escaped && after.is_some_and(|after| after.starts_with('{'))
        });
        let at = found.map(|(at, _)| at);
        if at.is_some_and(|at| first.is_none_or(|(known, _)| at < known)) {
            first = at.map(|at| (at, quote));
        }
    }
    first
}

/// What follows the object that has been opened; nothing where it is cut.
fn after_object<'a>(text: &'a str, quote: &str) -> &'a str {
    let (mut depth, mut inside, mut at) = (1, false, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            inside = !inside;
            at += quote.len();
            continue;
        }
        let c = rest.chars().next().unwrap_or_default();
        match c {
            // What is escaped within a string ends nothing.
            '\\' if inside => {
                at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                continue;
            }
            '{' if !inside => depth += 1,
            '}' if !inside => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

/// YAML below `data:` and `stringData:`, and what was applied last.
fn without_blocks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut block: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let plain = line.trim_start();
        let indent = line.len() - plain.len();
        let blank = plain.trim().is_empty();
        if block.is_some_and(|block| indent > block) && !blank {
            match plain.split_once(':') {
                Some((key, _)) if !key.contains([' ', '{']) => {
                    push(&mut out, indent, &format!("{key}: {GONE}"));
                }
                _ => {}
            }
            continue;
        }
        if block.is_some() && !blank {
            block = None;
        }
        let key = plain.trim_start_matches("- ");
        let margin = indent + (plain.len() - key.len());
        let opens = matches!(key.trim_end(), "data:" | "stringData:");
        if opens {
            block = Some(margin);
        } else if key.contains("last-applied-configuration") && key.contains(':') {
            let (name, _) = key.split_once(':').unwrap_or_default();
            push(&mut out, margin, &format!("{name}: {GONE}"));
            block = Some(margin);
            continue;
        } else if is_coded(plain.trim()) {
            push(&mut out, indent, GONE);
            continue;
        }
        out.push_str(line);
    }
    out
}

fn push(out: &mut String, indent: usize, text: &str) {
    out.push_str(&" ".repeat(indent));
    out.push_str(text);
    out.push('\n');
}

/// A line that is nothing but digits of base64: a value that a terminal has broken.
fn is_coded(line: &str) -> bool {
    let digit = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    line.len() >= 20 && line.chars().all(digit)
}

/// Headers, keys and tokens of one line.
fn of_line(line: &str) -> String {
    let (line, end) = match line.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (line, ""),
    };
    let line = without_header(line);
    let line = without_keys(&line);
    without_schemes(&line) + end
}

fn without_header(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let found = HEADERS.iter().find_map(|header| {
        let at = lower.find(header)?;
        let own = lower[..at].chars().next_back();
        own.is_none_or(|c| !c.is_ascii_alphanumeric())
            .then_some(at + header.len())
    });
    let Some(from) = found.filter(|_| lower.len() == line.len()) else {
        return line.to_owned();
    };
    let value = &line[from..];
    let quoted = value
        .find(['"', '\''])
        .filter(|at| !value[..*at].trim().is_empty());
    let end = quoted.map_or("", |at| &value[at..]);
    format!("{} {GONE}{end}", &line[..from])
}

/// `password=...`, `"password": "..."`, and lines that are `password: ...`.
fn without_keys(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut done = 0;
    for (at, sign) in line.match_indices(['=', ':']) {
        if at < done {
            continue;
        }
        if let Some((from, to)) = value_of(line, at, sign) {
            out.push_str(&line[done..from]);
            out.push_str(GONE);
            done = to;
        }
    }
    out.push_str(&line[done..]);
    out
}

/// Where the value stands that belongs to the key before this sign, where that is a secret's.
fn value_of(line: &str, at: usize, sign: &str) -> Option<(usize, usize)> {
    let before = line[..at].trim_end();
    let quote = ["\\\"", "\"", "'"]
        .into_iter()
        .find(|quote| before.ends_with(quote));
    let name = quote.map_or(before, |quote| &before[..before.len() - quote.len()]);
    let mut others = name
        .char_indices()
        .rev()
        .filter(|(_, c)| !(c.is_ascii_alphanumeric() || "._-".contains(*c)));
    let start = others.next().map_or(0, |(at, c)| at + c.len_utf8());
    let key = name[start..].trim_start_matches('-').to_ascii_lowercase();
    let ends = ["_password", "_token", "_secret"];
    if !KEYS.contains(&key.as_str()) && !ends.iter().any(|end| key.ends_with(end)) {
        return None;
    }
    let after = &line[at + 1..];
    let from = at + 1 + (after.len() - after.trim_start().len());
    let value = &line[from..];
    let opened = quote.filter(|quote| value.starts_with(quote));
    let to = if let Some(quote) = opened {
        let inner = from + quote.len();
        let end = line[inner..]
            .find(quote)
            .map_or(line.len(), |end| inner + end);
        return Some((inner, end)).filter(|(from, to)| from < to);
    } else if sign == "=" {
        let quoted = value.starts_with(['"', '\'']);
        let end = value[usize::from(quoted)..].find(|c: char| {
            "\"'".contains(c) || (!quoted && (c.is_whitespace() || "&;,)<>".contains(c)))
        });
        end.map_or(line.len(), |end| from + usize::from(quoted) + end)
    } else {
        // A sentence with a colon in it is no key with its value.
        let alone = line[..start]
            .trim_start()
            .trim_start_matches("- ")
            .is_empty();
        let word = !value.trim_end().contains(char::is_whitespace);
        let plain = !value.starts_with(['|', '>', '{', '[']);
        if !(quote.is_none() && alone && word && plain) {
            return None;
        }
        from + value.trim_end().len()
    };
    (from < to).then_some((from, to))
}

/// `Basic ...` and `Bearer ...` with what looks like a login, and tokens that begin as JSON does in base64.
fn without_schemes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut scheme = false;
    let mut rest = line;
    while !rest.is_empty() {
        let digit = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let end = rest.find(|c: char| !digit(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let gone = word.len() >= 16 && word.starts_with("eyJ") || scheme && is_login(word, after);
        out.push_str(if gone { GONE } else { word });
        let lower = word.to_ascii_lowercase();
        scheme = matches!(lower.as_str(), "basic" | "bearer") && after.starts_with(' ');
        let mut others = after.chars();
        out.extend(others.next());
        rest = others.as_str();
    }
    out
}

/// Whether a word after `Basic` or `Bearer` is a login and neither a parameter (`realm="..."`) nor a word of a sentence.
fn is_login(word: &str, after: &str) -> bool {
    let parameter = word.ends_with('=') && after.starts_with('"');
    let plain = word.trim_end_matches(['.', '=', '-']);
    let coded = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || "_~+/=".contains(c);
    word.len() >= 6 && !parameter && (plain.contains(coded) || word.ends_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_go() {
        let secret = "apiVersion: v1\ndata:\n  .dockerconfigjson: bWFyaw==\n  tls.key: |\n    bWFyaw\n    bWFyaw2\nkind: Secret\nmetadata:\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: |\n      {\"stringData\":{\"x\":\"bWFyaw==\"}}\n  name: bobok\nstringData:\n  password: two bWFyaw words\n";
        let kept = concealed(secret);
        assert!(!kept.contains("bWFyaw"), "{kept}");
        assert!(
            kept.contains("  name: bobok\n") && kept.contains("kind: Secret"),
            "{kept}"
        );
        for json in [
            r#"{"apiVersion":"v1","data":{"a":"bWFyaw==","b":"}\"bWFyaw"},"kind":"Secret","metadata":{"name":"x"}}"#,
            "{\n  \"data\": {\n    \"a\": \"bWFyaw==\"\n  },\n  \"kind\": \"Secret\"\n}",
            r#"{"kind":"Secret","metadata":{"annotations":{"l":"{\"data\":{\"a\":\"bWFyaw==\"},\"kind\":\"Secret\"}"}}}"#,
            r#"{"kind":"Secret","data":{"a":"bWFyaw"#,
        ] {
            let kept = concealed(json);
            assert!(!kept.contains("bWFyaw") && kept.contains("kind"), "{kept}");
        }
    }

    #[test]
    fn logins_go_and_sentences_stay() {
        for gone in [
            "Authorization: Basic Ym9iOm1hcms=",
            "> authorization: Bearer mark",
            "curl -H 'Authorization: Bearer mark' https://r.test",
            "Authorization:[Basic Ym9iOm1hcms=]",
            "sent Basic Ym9iOm1hcms= to it",
            "with Bearer eyJhbGciOiJtYXJr.bWFyaw.x",
            "docker login --password=mark r.test",
            "GET /v2/?token=mark&x=1",
            r#"{"auths":{"r.test":{"username":"bob","password":"mark","auth":"Ym9iOm1hcms="}}}"#,
            r#"config: "{\"auth\":\"Ym9iOm1hcms=\"}""#,
            "  password: mark",
            "  .dockerconfigjson: Ym9iOm1hcms=",
            "REGISTRY_PASSWORD=mark",
        ] {
            let kept = concealed(gone);
            let marks = ["mark", "Ym9iOm1hcms", "bWFyaw", "eyJ"];
            assert!(!marks.iter().any(|mark| kept.contains(mark)), "{kept}");
            assert!(kept.contains(GONE), "{kept}");
        }
        for stays in [
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://a.test/token?scope=repository%3Aa%3Apull&service=r: 401 Unauthorized",
            "www-authenticate: Bearer realm=\"https://a.test/token\",service=\"r.test\"",
            "no basic auth credentials",
            "Basic authentication is required.",
            "code = Unknown d\u{e9}tail: le mot de passe\u{a0}: \u{20ac}= \u{1f600}:x",
            "failed to fetch oauth token: unexpected status: 403 Forbidden",
            "unauthorized: authentication required",
            "MountVolume.SetUp failed for volume \"token\" : secret \"regcred\" not found",
            "Secret: registry/password:v1",
            "image: registry.test/team/secret:v1",
            "Failed to pull image \"r.test/auth:v1\": r.test/auth:v1: not found",
            "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(concealed(stays), stays);
        }
    }
}
