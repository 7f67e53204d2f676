//! Lines of a kubelet's log, as a journal or `kubectl logs` has them, structured text or JSON: each names its pod.

use serde_json::Value;

use super::table::is_name;

/// What one line says of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) namespace: Option<String>,
    pub(super) pod: String,
    pub(super) node: Option<String>,
    /// The error; empty where the line is about something else.
    pub(super) text: String,
}

/// Longest line that is read.
const MAX_LINE: usize = 64 * 1024;

/// Reads a line that names a pod in the way of the kubelet's log.
pub(super) fn entry(line: &str) -> Option<Entry> {
    let line = line.trim();
    if line.len() > MAX_LINE {
        return None;
    }
    if line.starts_with('{') {
        return of_json(line);
    }
    let pod = quoted(line, " pod=")?;
    let (namespace, pod) = named(&pod)?;
    Some(Entry {
        namespace,
        pod,
        node: host(line),
        text: error(quoted(line, " err=")),
    })
}

fn of_json(line: &str) -> Option<Entry> {
    let value: Value = serde_json::from_str(line).ok()?;
    let (namespace, pod) = match &value["pod"] {
        Value::String(name) => named(name)?,
        object => {
            let text = |key: &str| object[key].as_str().filter(|text| is_name(text));
            let name = text("name")?.to_owned();
            (text("namespace").map(str::to_owned), name)
        }
    };
    let said = ["err", "error"].iter().find_map(|key| value[*key].as_str());
    Some(Entry {
        namespace,
        pod,
        node: None,
        text: error(said.map(str::to_owned)),
    })
}

/// `shop/web-1`
fn named(text: &str) -> Option<(Option<String>, String)> {
    let (namespace, name) = text.split_once('/')?;
    (is_name(namespace) && is_name(name)).then(|| (Some(namespace.to_owned()), name.to_owned()))
}

/// An error that is about an image; other errors of a pod say nothing of its pull.
fn error(said: Option<String>) -> String {
    let about = [
        "ImagePull",
        "pull image",
        "PullImage",
        "ImageNeverPull",
        "InvalidImageName",
    ];
    said.filter(|said| about.iter().any(|words| said.contains(words)))
        .unwrap_or_default()
}

/// The value behind `key`, in quotes as Go writes them.
fn quoted(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(key)?;
    let mut characters = rest.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

/// The machine in front of `kubelet[812]:`, as a journal has it.
fn host(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().take(6);
    let mut last = None;
    loop {
        let word = words.next()?;
        if word.starts_with("kubelet[") {
            return last.filter(|host: &&str| is_name(host)).map(str::to_owned);
        }
        last = Some(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_names_its_pod() {
        let journal = r#"Nov 30 12:00:01 node-1 kubelet[812]: E1130 12:00:01.000000     812 pod_workers.go:1301] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"app\" with ErrImagePull: \"rpc error: code = NotFound desc = not found\"" pod="shop/web-1" podUID="1""#;
        let json = r#"{"ts":1764504001000.0,"caller":"kubelet/pod_workers.go:1301","msg":"Error syncing pod, skipping","pod":{"name":"web-1","namespace":"shop"},"podUID":"1","err":"failed to \"StartContainer\" for \"app\" with ErrImagePull: \"rpc error: code = NotFound desc = not found\""}"#;
        for (line, node) in [(journal, Some("node-1")), (json, None)] {
            let entry = entry(line).unwrap();
            assert_eq!(
                (entry.namespace.as_deref(), entry.pod.as_str()),
                (Some("shop"), "web-1")
            );
            assert_eq!(entry.node.as_deref(), node);
            assert_eq!(
                entry.text,
                r#"failed to "StartContainer" for "app" with ErrImagePull: "rpc error: code = NotFound desc = not found""#
            );
        }
        let other =
            r#"E1130 12:00:01 1 x.go:1] "Probe failed" pod="shop/web-1" err="connection refused""#;
        assert_eq!(entry(other).unwrap().text, "");
        assert_eq!(
            entry(r#"level=error msg="PullImage \"a:1\" failed" error="boom""#),
            None
        );
        assert_eq!(entry(r#"{"pod": 7}"#), None);
        assert_eq!(entry(r#"x pod="not a name" err="y""#), None);
    }
}
