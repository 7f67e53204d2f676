//! Wrappers that are not links of the chain: the kubelet's sentences around an image, log lines, JSON, and aggregates.

use std::borrow::Cow;

use serde_json::Value;

/// A text without its wrappers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peeled {
    /// The image that a wrapper named.
    pub(crate) image: Option<String>,
    /// The errors: one, or those of an aggregate.
    pub(crate) parts: Vec<String>,
}

/// Sentences of the kubelet that name the image and are followed by `: ` and the error.
const NAMING: &[&str] = &[
    "Back-off pulling image ",
    "Failed to pull image ",
    "(combined from similar events): ",
];

/// Most bytes that may stand before such a sentence.
const MAX_BEFORE: usize = 256;

/// How an error of an aggregate may begin.
const BEGINNINGS: &[&str] = &[
    "rpc error: ",
    "failed to ",
    "Error response from daemon: ",
    "initializing source ",
    "Error reading ",
    "reading manifest ",
];

/// Takes off all wrappers.
pub(crate) fn all(text: &str) -> Peeled {
    let mut peeled = Peeled::default();
    let text = text.trim();
    let field = field(text);
    let text = log_line(&unescaped(field.as_deref().unwrap_or(text)));
    let mut rest = sentence(&text);
    for _ in 0..8 {
        let Some((image, after)) = naming(rest) else {
            break;
        };
        if image.is_some() {
            peeled.image = image;
        }
        rest = after;
    }
    peeled.parts = aggregate(of_pulling(of_details(of_artifact(rest))))
        .into_iter()
        .map(|part| json(&part))
        .collect();
    peeled
}

/// The value of one `"message": "..."` of JSON or YAML.
fn field(text: &str) -> Option<String> {
    let value = ["\"message\":", "message:"]
        .iter()
        .find_map(|key| text.strip_prefix(key))?;
    let (value, after) = quoted(value.trim_start())?;
    matches!(after.trim_end(), "" | ",").then_some(value)
}

/// The first kubelets add a guess of their own, and what was said in brackets.
fn of_details(text: &str) -> &str {
    let guess = "no credentials on this request";
    let details = text
        .find(guess)
        .map(|at| &text[at + guess.len()..])
        .and_then(|after| Some(after.split_once("details: (")?.1));
    details.map_or(text, |details| {
        let details = details.trim_end();
        details.strip_suffix(')').unwrap_or(details)
    })
}

/// docker's old `Error pulling image (tag) from repository, ` goes before the error.
fn of_pulling(text: &str) -> &str {
    text.strip_prefix('(')
        .unwrap_or(text)
        .strip_prefix("Error pulling image (")
        .and_then(|text| text.split_once(") from "))
        .and_then(|(_, text)| text.split_once(", "))
        .filter(|(repository, _)| !repository.contains([' ', '"', ':']))
        .map_or(text, |(_, error)| {
            let open = text.starts_with('(');
            error
                .trim_end()
                .strip_suffix(')')
                .filter(|_| open)
                .unwrap_or(error)
        })
}

/// A text whose quotes are all escaped was cut out of a string of JSON or of a log.
fn unescaped(text: &str) -> Cow<'_, str> {
    let quotes = text.matches('"').count();
    if quotes > 1 && text.matches("\\\"").count() == quotes && !text.contains("\\\\\"") {
        return Cow::Owned(text.replace("\\\"", "\"").replace("\\n", "\n"));
    }
    Cow::Borrowed(text)
}

/// The text from the kubelet's sentence on, where only words stand before it: a container's place, a row's columns.
fn sentence(text: &str) -> &str {
    let beginnings = ["Failed to pull image \"", "Back-off pulling image \""];
    let first = beginnings.iter().filter_map(|begin| text.find(begin)).min();
    first
        .filter(|at| *at <= MAX_BEFORE && !text[..*at].contains(['"', '\n']))
        .map_or(text, |at| &text[at..])
}

/// One of the kubelet's sentences; the image it names, and what follows.
fn naming(text: &str) -> Option<(Option<String>, &str)> {
    let (sentence, after) = NAMING
        .iter()
        .find_map(|sentence| Some((sentence, text.strip_prefix(sentence)?)))?;
    if sentence.ends_with(": ") {
        return Some((None, after));
    }
    let (image, after) = quoted(after)?;
    let after = after.trim_start_matches([':', ',', ' ', '\n']);
    // `ErrImagePull: ` and its like go before the remembered message.
    let after = after.strip_prefix("ErrImagePull: ").unwrap_or(after);
    Some((Some(image), after))
}

/// A string in double quotes with its escapes, as Go prints it.
pub(crate) fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((out, &inner[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

/// The message of a structured log line (`err="..."`, `error="..."`, `msg="..."`), or the text as it is.
fn log_line(text: &str) -> String {
    let text = after_stamp(text);
    let levels = ["INFO[", "WARN[", "ERRO[", "FATA[", "DEBU["];
    let is_log = ["level=", "time=", "\"", "error="]
        .iter()
        .any(|beginning| text.starts_with(beginning))
        || levels.iter().any(|level| text.starts_with(level))
        || text.contains(" level=");
    if is_log {
        for field in ["err=", "error=", "msg="] {
            if let Some(value) = field_of(text, field) {
                let before = (field != "msg=").then(|| field_of(text, "msg=")).flatten();
                return match before {
                    Some(message) => format!("{message}: {value}"),
                    None => start_container(&in_sentence(text, &value)),
                };
            }
        }
    }
    start_container(text)
}

/// The value of a log line together with the sentence that quotes that line, where there is one: it says what was done.
fn in_sentence(text: &str, value: &str) -> String {
    let outer = text.find("time=\"").map_or("", |at| &text[..at]);
    if outer.starts_with("failed to ") || outer.contains(": failed to ") {
        return format!("{outer}{value}");
    }
    value.to_owned()
}

/// What follows the stamp of a line of the kubelet's log (`E1016 18:15:47.571104    4813 remote_image.go:180] `), wherever that stands.
fn after_stamp(text: &str) -> &str {
    for (at, _) in text.match_indices(".go:") {
        let rest = &text[at + ".go:".len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let before = text[..at].rsplit(['\n', '"']).next().unwrap_or_default();
        let stamped = before.split_whitespace().any(|word| {
            word.len() == 5
                && word.starts_with(['I', 'W', 'E', 'F'])
                && word[1..].bytes().all(|b| b.is_ascii_digit())
        });
        // Copies of the line may have lost the stamp, and begin with the file.
        let bare = text[..at]
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // The kubelet ends its own words about a plugin with what the plugin logged.
        let of_plugin = text[..at].contains("credential provider plugin ");
        if digits > 0
            && (stamped || bare)
            && !of_plugin
            && let Some(message) = rest[digits..].strip_prefix("] ")
        {
            return message;
        }
    }
    text
}

/// The value in quotes of a field of a log line. Some copies have lost the escapes of the quotes within: such a value goes on to the
/// quote that ends the line, or that another field follows.
fn field_of(text: &str, field: &str) -> Option<String> {
    for (at, _) in text.match_indices(field) {
        if at > 0 && text.as_bytes()[at - 1] != b' ' {
            continue;
        }
        let rest = &text[at + field.len()..];
        let Some((value, after)) = quoted(rest) else {
            continue;
        };
        if after.is_empty() || after.starts_with(char::is_whitespace) {
            return Some(value);
        }
        let inner = &rest[1..];
        let end = inner
            .match_indices("\" ")
            .find(|(end, _)| is_field(&inner[end + 2..]))
            .map(|(end, _)| end)
            .or_else(|| inner.rfind('"'));
        return Some(inner[..end.unwrap_or(inner.len())].to_owned());
    }
    None
}

/// `key=`.
fn is_field(text: &str) -> bool {
    let key = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    key > 0 && text[key..].starts_with('=')
}

/// `failed to "StartContainer" for "c" with ErrImagePull: "..."`: what is in the last quotes.
fn start_container(text: &str) -> String {
    let Some(at) = text.find("failed to \"StartContainer\" for ") else {
        return text.to_owned();
    };
    let inner = text[at..]
        .find(": \"")
        .and_then(|quote| quoted(&text[at + quote + 2..]));
    inner.map_or_else(|| text.to_owned(), |(inner, _)| inner)
}

/// CRI-O asks for an image and then for an artifact of the same name, and tells both: that of the image counts.
fn of_artifact(text: &str) -> &str {
    let image = text
        .find("pull image err: ")
        .map(|at| &text[at + "pull image err: ".len()..]);
    let Some(image) = image else { return text };
    image
        .find("; artifact err: ")
        .map_or(image, |end| &image[..end])
}

/// The parts of `[e1, e2]`; one part for anything else.
fn aggregate(text: &str) -> Vec<String> {
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.trim_end().strip_suffix(']'))
    else {
        return vec![text.to_owned()];
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in inner.match_indices(", ") {
        if BEGINNINGS
            .iter()
            .any(|beginning| inner[at + 2..].starts_with(beginning))
        {
            parts.push(inner[start..at].to_owned());
            start = at + 2;
        }
    }
    parts.push(inner[start..].to_owned());
    parts
}

/// Puts the words of embedded JSON in place of it: `{"message": ...}` of a daemon, `{"errors": [...]}` of a registry.
fn json(text: &str) -> String {
    let Some(start) = text.find('{') else {
        return text.to_owned();
    };
    let unescaped = text[start..].replace("\\\"", "\"");
    let one_line = text[start..].replace(['\n', '\r'], " ");
    let found = [&text[start..], unescaped.as_str(), one_line.as_str()]
        .into_iter()
        .find_map(|candidate| {
            let mut stream = serde_json::Deserializer::from_str(candidate).into_iter::<Value>();
            let value = stream.next()?.ok()?;
            words(&value)
        });
    match found {
        Some(words) => format!("{} {words}", text[..start].trim_end()),
        None => text.to_owned(),
    }
}

fn words(value: &Value) -> Option<String> {
    let said = |key: &str| value.get(key).and_then(Value::as_str);
    if let Some(message) = said("message") {
        return Some(message.to_owned());
    }
    // A line of a log.
    match (said("msg"), said("error").or_else(|| said("err"))) {
        (Some(message), Some(error)) => return Some(format!("{message}: {error}")),
        (Some(one), None) | (None, Some(one)) => return Some(one.to_owned()),
        (None, None) => {}
    }
    let error = value.get("errors")?.as_array()?.first()?;
    let code = error
        .get("code")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Some(format!("{}: {message}", code.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_come_off() {
        for (text, image, parts) in [
            (
                r#"Back-off pulling image "a: b": ErrImagePull: boom: c"#,
                Some("a: b"),
                vec!["boom: c"],
            ),
            (r#"Back-off pulling image "a""#, Some("a"), vec![""]),
            (
                r#"Failed to pull image "a": [rpc error: code = X desc = y, failed to z]"#,
                Some("a"),
                vec!["rpc error: code = X desc = y", "failed to z"],
            ),
            (
                r#"(combined from similar events): Failed to pull image "a": boom"#,
                Some("a"),
                vec!["boom"],
            ),
            (r#"level=error msg="m" error="e: f""#, None, vec!["m: e: f"]),
            (
                r#""Error" err="failed to \"StartContainer\" for \"p\" with ErrImagePull: \"inner\"" x="y""#,
                None,
                vec!["inner"],
            ),
            (
                r#"Error: {"message":"Get \"u\": EOF"}"#,
                None,
                vec![r#"Error: Get "u": EOF"#],
            ),
            (
                r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}"#,
                None,
                vec![" blob_unknown: no"],
            ),
        ] {
            let peeled = all(text);
            assert_eq!(
                (peeled.image.as_deref(), peeled.parts),
                (image, parts.into_iter().map(str::to_owned).collect()),
                "{text}"
            );
        }
    }
}
