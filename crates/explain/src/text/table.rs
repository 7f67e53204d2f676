//! Rows of `kubectl get events`, `kubectl events`, `kubectl describe` and `kubectl get pods`, of every release, also where a chat
//! program made one space out of many.

use super::seen::Said;

/// A row of events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) namespace: Option<String>,
    /// `pod/name`, where the row names its object.
    pub(super) pod: Option<String>,
    /// It names an object that is no pod.
    pub(super) other: bool,
    pub(super) node: Option<String>,
    pub(super) reason: String,
    pub(super) container: Option<String>,
    pub(super) age: Option<u64>,
    pub(super) count: Option<u32>,
    pub(super) text: String,
}

impl Row {
    pub(super) fn said(self) -> Said {
        Said {
            reason: Some(self.reason),
            container: self.container,
            text: self.text,
            age: self.age,
            count: self.count,
        }
    }
}

/// Words of a row before its type: namespace, ages, count, object.
const MAX_LEAD: usize = 12;

/// Reads a row of events: one that has `Normal` or `Warning` and a reason.
pub(super) fn event(line: &str) -> Option<Row> {
    let words = words(line);
    let at = words
        .iter()
        .take(MAX_LEAD)
        .position(|(_, word)| matches!(*word, "Normal" | "Warning"))?;
    let reason = words.get(at + 1).filter(|(_, word)| is_reason(word))?;
    let mut row = Row {
        reason: reason.1.to_owned(),
        ..Row::default()
    };
    lead(&words[..at], &mut row);
    let mut next = at + 2;
    if let Some((kind, name)) = words.get(next).and_then(|(_, word)| object(word)) {
        next += 1;
        row.other = !kind.eq_ignore_ascii_case("pod");
        row.pod = (!row.other).then(|| name.to_owned());
    } else {
        next = ages(&words, next, &mut row);
    }
    if let Some(container) = words
        .get(next)
        .and_then(|(_, word)| field_path(word.trim_end_matches(':')))
    {
        row.container = Some(container.to_owned());
        next += 1;
    }
    next = source(&words, next, &mut row);
    let start = words.get(next).map_or(line.len(), |(start, _)| *start);
    row.text = wide_tail(line[start..].trim_end(), &mut row);
    Some(row)
}

fn words(line: &str) -> Vec<(usize, &str)> {
    let start = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    line.split_whitespace()
        .take(64)
        .map(|word| (start(word), word))
        .collect()
}

/// A reason is one word in `CamelCase`.
fn is_reason(word: &str) -> bool {
    word.len() < 64
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric())
}

/// What stands before the type.
fn lead(words: &[(usize, &str)], row: &mut Row) {
    let mut namespace = None;
    for (at, (_, word)) in words.iter().enumerate() {
        if let Some(seconds) = age(word) {
            row.age.get_or_insert(seconds);
        } else if let Some(container) = field_path(word) {
            row.container = Some(container.to_owned());
        } else if let Some(count) = word.strip_prefix("(x") {
            row.count = count.parse().ok();
        } else if let Some((kind, name)) = object(word) {
            row.other = !kind.eq_ignore_ascii_case("pod");
            row.pod = (!row.other).then(|| name.to_owned());
        } else if at == 0 && is_name(word) {
            namespace = Some((*word).to_owned());
        }
    }
    // A name in front of an age is the namespace of `-A`.
    row.namespace = namespace.filter(|_| row.age.is_some());
}

/// `4m`, `4m (x5 over 9m)`, `<unknown>` in `kubectl describe`; the place after them.
fn ages(words: &[(usize, &str)], mut next: usize, row: &mut Row) -> usize {
    while let Some((_, word)) = words.get(next) {
        let filler = matches!(*word, "over" | "<unknown>" | "<invalid>")
            || (word.ends_with(')') && age(word.trim_end_matches(')')).is_some());
        if let Some(seconds) = age(word) {
            row.age.get_or_insert(seconds);
        } else if let Some(count) = word.strip_prefix("(x") {
            row.count = count.trim_end_matches(')').parse().ok();
        } else if !filler {
            break;
        }
        next += 1;
    }
    next
}

/// `kubelet`, `kubelet, node-1` and the like; the place after it.
fn source(words: &[(usize, &str)], next: usize, row: &mut Row) -> usize {
    const SOURCES: &[&str] = &[
        "kubelet",
        "default-scheduler",
        "kubelet,",
        "default-scheduler,",
        "{kubelet",
    ];
    let Some((_, word)) = words.get(next).filter(|(_, word)| SOURCES.contains(word)) else {
        return next;
    };
    if !word.ends_with(',') && !word.starts_with('{') {
        return next + 1;
    }
    row.node = words
        .get(next + 1)
        .map(|(_, node)| node.trim_end_matches('}').to_owned())
        .filter(|node| is_name(node));
    next + 2
}

/// The columns that `-o wide` puts behind the message: first seen, count, name.
fn wide_tail(text: &str, row: &mut Row) -> String {
    let mut cells = text.rsplitn(4, "   ");
    let (name, count, first, rest) = (cells.next(), cells.next(), cells.next(), cells.next());
    if let (Some(name), Some(count), Some(first), Some(rest)) = (name, count, first, rest)
        && age(first.trim()).is_some()
        && is_name(name.trim())
        && let Ok(count) = count.trim().parse()
    {
        row.count = Some(count);
        return rest.trim_end().to_owned();
    }
    text.to_owned()
}

/// `pod/name`, `Pod/name`: kind and name.
fn object(word: &str) -> Option<(&str, &str)> {
    let (kind, name) = word.split_once('/')?;
    let kind_like = !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphabetic());
    (kind_like && is_name(name)).then_some((kind, name))
}

/// `spec.containers{app}`: the container's name.
pub(super) fn field_path(word: &str) -> Option<&str> {
    let rest = word.strip_prefix("spec.")?;
    let (list, name) = rest.split_once('{')?;
    matches!(
        list,
        "containers" | "initContainers" | "ephemeralContainers"
    )
    .then(|| name.trim_end_matches('}'))
}

/// A name as Kubernetes allows it.
pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 253
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

/// The seconds of `3d4h`, `5m10s`, `0s`.
pub(super) fn age(word: &str) -> Option<u64> {
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for c in word.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'y' => 365 * 86400,
            _ => return None,
        };
        let value: u64 = number.parse().ok()?;
        seconds = seconds.checked_add(value.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && !word.is_empty()).then_some(seconds)
}

/// A row of `kubectl get pods`: namespace, name, STATUS.
pub(super) fn pod(line: &str) -> Option<(Option<&str>, &str, &str)> {
    let words: Vec<&str> = line.split_whitespace().take(12).collect();
    let ready = words.iter().position(|word| is_ready(word))?;
    let status = *words.get(ready + 1)?;
    let (namespace, name) = match &words[..ready] {
        [name] => (None, *name),
        [namespace, name] => (Some(*namespace), *name),
        _ => return None,
    };
    let named = is_name(name) && namespace.is_none_or(is_name);
    let worded = status.starts_with(|c: char| c.is_ascii_alphabetic());
    let restarts = words.get(ready + 2)?.parse::<u32>().is_ok();
    (named && worded && restarts).then_some((namespace, name, status))
}

/// `0/1`
fn is_ready(word: &str) -> bool {
    word.split_once('/')
        .is_some_and(|(ready, all)| ready.parse::<u16>().is_ok() && all.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Row {
        event(line).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_form_of_an_event_is_read() {
        let text = "Failed to pull image \"a/b:1\": boom";
        for (line, namespace, pod, container, node, age, count) in [
            (
                format!("  Warning  Failed     4m12s (x4 over 6m)  kubelet            {text}"),
                None,
                None,
                None,
                None,
                Some(252),
                Some(4),
            ),
            (
                format!("Warning Failed 4m kubelet, node-1 {text}"),
                None,
                None,
                None,
                Some("node-1"),
                Some(240),
                None,
            ),
            (
                format!("5m14s       Warning   Failed      pod/web-1     {text}"),
                None,
                Some("web-1"),
                None,
                None,
                Some(314),
                None,
            ),
            (
                format!("5m   Warning   Failed   pod/web-1   spec.containers{{app}}: {text}"),
                None,
                Some("web-1"),
                Some("app"),
                None,
                Some(300),
                None,
            ),
            (
                format!("shop   5m   Warning   Failed   Pod/web-1   {text}"),
                Some("shop"),
                Some("web-1"),
                None,
                None,
                Some(300),
                None,
            ),
            (
                format!(
                    "shop  5m  Warning  Failed  pod/web-1  spec.containers{{app}}  kubelet, n1  {text}   9m   7   web-1.17ab"
                ),
                Some("shop"),
                Some("web-1"),
                Some("app"),
                Some("n1"),
                Some(300),
                Some(7),
            ),
            (
                format!(
                    "3m  3m  1  {{kubelet n1}}  spec.containers{{app}}  Warning  Failed  {text}"
                ),
                None,
                None,
                Some("app"),
                None,
                Some(180),
                None,
            ),
            (
                format!("<unknown>   Warning   Failed   pod/web-1   {text}"),
                None,
                Some("web-1"),
                None,
                None,
                None,
                None,
            ),
        ] {
            let row = row(&line);
            assert_eq!(row.text, text, "{line}");
            assert_eq!(row.reason, "Failed", "{line}");
            assert_eq!(
                (
                    row.namespace.as_deref(),
                    row.pod.as_deref(),
                    row.container.as_deref(),
                    row.node.as_deref()
                ),
                (namespace, pod, container, node),
                "{line}"
            );
            assert_eq!((row.age, row.count), (age, count), "{line}");
        }
        assert_eq!(event("a Warning sign"), None);
        assert_eq!(event("Failed to pull image"), None);
    }

    #[test]
    fn pods_of_a_list() {
        assert_eq!(
            pod("web-1   0/1   ImagePullBackOff   0   5m"),
            Some((None, "web-1", "ImagePullBackOff"))
        );
        assert_eq!(
            pod("shop web-1 0/2 Init:ErrImagePull 0 5m 10.0.0.1 node-1"),
            Some((Some("shop"), "web-1", "Init:ErrImagePull"))
        );
        assert_eq!(pod("NAME READY STATUS RESTARTS AGE"), None);
        assert_eq!(pod("deployment.apps/web 0/1 1 0 5m"), None);
    }
}
