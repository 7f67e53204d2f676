//! What people paste, explained without a cluster: a message of a kubelet or a runtime, `kubectl describe pod`, `kubectl get events`
//! or `get pods`, pods and events as YAML or JSON, several of these one after the other.
//!
//! The paste is cut into sections, each section is read into what it shows of pods ([`seen`]), and each pod's images are
//! explained from the words alone. Nothing is proven by text: the answer names what would decide. Pure: no I/O.

mod clean;
mod conceal;
mod describe;
mod diagnose;
mod log;
mod objects;
mod remedy;
mod seen;
mod silent;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Diagnosis;
use crate::fold::Fold;
use crate::scan::Scan;
use describe::Describe;
pub(crate) use seen::is_pull_reason;
use seen::{Said, Seen};

/// Longest paste that is read, in bytes; what follows is ignored, and the answer says so.
pub const MAX_INPUT: usize = 8 << 20;

/// Explains a paste: one diagnosis for each pod and image, the clearest cause first; pods of one workload that fail for one reason are one.
///
/// Never empty: a text that says nothing gives one diagnosis with the cause `Unknown`.
pub fn explain(input: &str) -> Vec<Diagnosis> {
    diagnose::joined(each(input))
}

/// Explains a paste of many pods as a scan of a cluster does: pods that fail for one reason are one answer, most harmful first. A paste that
/// shows less than two pods gives the same as [`explain`].
pub fn scan(input: &str) -> Scan {
    let all = each(input);
    let is_pod = |one: &&Diagnosis| one.target.kind == "Pod";
    let names = all.iter().filter(is_pod).map(|one| {
        let target = &one.target;
        (target.namespace.clone(), target.name.clone())
    });
    let pods = names.collect::<BTreeSet<_>>().len();
    if pods < 2 {
        return Scan::of(PASTED, diagnose::joined(all));
    }
    let mut fold = Fold::default();
    for one in all {
        fold.take(one);
    }
    let (broken, undecided) = fold.pods();
    Scan {
        pods,
        waiting: broken + undecided,
        broken,
        undecided,
        ..Scan::of(PASTED, fold.finish())
    }
}

/// What was asked about, in the words of a scan.
const PASTED: &str = "the pasted text";

fn each(input: &str) -> Vec<Diagnosis> {
    let mut end = input.len().min(MAX_INPUT);
    while !input.is_char_boundary(end) {
        end -= 1;
    }
    let text = conceal::concealed(&clean::plain(&input[..end]));
    let mut seen = Seen::default();
    if !whole(&text, &mut seen) {
        let text = clean::unbroken(&text, starts);
        lines(&text, &mut seen);
    }
    diagnose::all(&seen, end < input.len())
}

/// A line that begins something of its own, and so continues no line before it.
fn starts(line: &str) -> bool {
    table::event(line).is_some()
        || table::pod(line).is_some()
        || describe::begins(line)
        || log::entry(line).is_some()
        || is_header(line)
        || begins_message(line)
        || line.split_once(':').is_some_and(|(key, value)| {
            let words = key.trim();
            let short = !words.is_empty() && words.len() < 24;
            short && (value.is_empty() || value.starts_with("  ")) && !words.contains(['"', '/'])
        })
}

/// The whole text is one JSON or YAML stream of objects.
fn whole(text: &str, seen: &mut Seen) -> bool {
    let start = text.trim_start();
    if start.starts_with(['{', '[']) {
        let stream = serde_json::Deserializer::from_str(start).into_iter::<Value>();
        let values: Vec<Value> = stream.map_while(Result::ok).take(seen::MAX_PODS).collect();
        return take_all(&values, seen);
    }
    is_yaml(text.lines()) && yaml(text, seen)
}

/// Takes every object; false when none shows anything of a pod.
fn take_all(values: &[Value], seen: &mut Seen) -> bool {
    let mut any = false;
    for value in values {
        any |= objects::take(value, seen, 0);
    }
    any
}

/// `apiVersion:` at the margin.
fn is_yaml<'a>(mut lines: impl Iterator<Item = &'a str>) -> bool {
    lines.any(|line| line.starts_with("apiVersion:") || line.starts_with("- apiVersion:"))
}

fn yaml(text: &str, seen: &mut Seen) -> bool {
    let Ok(values) = serde_saphyr::from_multiple::<Value>(text) else {
        return false;
    };
    take_all(&values, seen)
}

/// Where in a paste a line stands.
enum Section {
    /// Sentences.
    Words,
    /// `kubectl describe pod`.
    Describe(Box<Describe>),
    /// A table of events, of this pod where a description holds it.
    Events(Option<(Option<String>, String)>),
    /// Lines of a YAML document.
    Yaml(String),
}

/// Reads a paste line by line.
fn lines(text: &str, seen: &mut Seen) {
    let mut reader = Reader {
        section: Section::Words,
        words: String::new(),
        last: None,
        seen,
    };
    for line in text.lines() {
        reader.line(line);
    }
    reader.close();
    reader.end_words();
}

struct Reader<'a> {
    section: Section,
    /// Sentences that belong to no section so far.
    words: String,
    /// The pod and the number of the event that a line may continue.
    last: Option<(Option<String>, String, Said)>,
    seen: &'a mut Seen,
}

fn is_header(line: &str) -> bool {
    let line = line.trim_start();
    [
        "LAST SEEN",
        "NAMESPACE ",
        "NAME ",
        "FIRST SEEN",
        "Type ",
        "FirstSeen",
        "----",
    ]
    .iter()
    .any(|header| line.starts_with(header))
}

fn is_prompt(line: &str) -> bool {
    let command = line
        .trim_start()
        .trim_start_matches(['$', '#', '%', '>', ' ']);
    command.starts_with("kubectl ") || command.starts_with("oc ") || command.starts_with("k get ")
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        if line.starts_with("apiVersion:") || line.starts_with("- apiVersion:") {
            // A list's items and later documents belong to the document that is open.
            if !matches!(&self.section, Section::Yaml(_)) {
                self.close();
                self.section = Section::Yaml(String::new());
            }
        }
        if let Section::Yaml(document) = &mut self.section {
            let inside = line.starts_with([' ', '-', '\t'])
                || line.trim().is_empty()
                || line
                    .split_once(':')
                    .is_some_and(|(key, _)| key.chars().all(char::is_alphabetic));
            if inside && !describe::begins(line) && table::event(line).is_none() {
                document.push_str(line);
                document.push('\n');
                return;
            }
            self.close();
        }
        if describe::begins(line) {
            self.close();
            self.section = Section::Describe(Box::default());
        } else if (is_header(line) || is_prompt(line)) && !self.inside(line) {
            self.close();
            self.section = Section::Events(None);
            return;
        }
        if self.described(line) || self.row(line) || self.logged(line) {
            return;
        }
        // A line of its own inside a table continues the sentence before it.
        if is_header(line) {
            return;
        }
        let continues = !line.trim().is_empty() && !begins_message(line);
        if let Some((_, _, said)) = self.last.as_mut().filter(|_| continues) {
            said.text.push('\n');
            said.text.push_str(line.trim());
            return;
        }
        self.end_event();
        self.words.push_str(line);
        self.words.push('\n');
    }

    /// An indented line of a description, whose tables have headers too.
    fn inside(&self, line: &str) -> bool {
        matches!(
            self.section,
            Section::Describe(_) | Section::Events(Some(_))
        ) && line.starts_with([' ', '\t'])
    }

    /// A line of a description.
    fn described(&mut self, line: &str) -> bool {
        let Section::Describe(describe) = &mut self.section else {
            return false;
        };
        if line.starts_with("Events:") {
            let pod = std::mem::take(describe).pod();
            let key = (pod.namespace.clone(), pod.name.clone());
            self.seen.add(pod);
            self.section = Section::Events(Some(key));
            return true;
        }
        if line.trim().is_empty() || describe.line(line) {
            return true;
        }
        self.close();
        false
    }

    /// A row of a table.
    fn row(&mut self, line: &str) -> bool {
        if let Some(row) = table::event(line) {
            self.end_event();
            let owner = match &self.section {
                Section::Events(Some(key)) if row.pod.is_none() => key.clone(),
                _ => (row.namespace.clone(), row.pod.clone().unwrap_or_default()),
            };
            if row.other {
                // What a controller says of pods it could not make: an admission policy may be the reason.
                if row.reason == "FailedCreate" {
                    self.words.push_str(&row.text);
                    self.words.push('\n');
                }
                return true;
            }
            if let Some(node) = row.node.clone()
                && let Some(pod) = self.seen.pod(owner.0.as_deref(), &owner.1)
            {
                pod.node.get_or_insert(node);
            }
            self.last = Some((owner.0, owner.1, row.said()));
            return true;
        }
        let Some((namespace, name, status)) = table::pod(line) else {
            return false;
        };
        self.end_event();
        if let Some(pod) = self.seen.pod(namespace, name) {
            let status = status.trim_start_matches("Init:");
            pod.runs |= matches!(status, "Running" | "Completed");
            if seen::is_pull_reason(status) {
                pod.say(Said {
                    text: status.to_owned(),
                    ..Said::default()
                });
            }
        }
        true
    }

    /// A line of a kubelet's log, which names its pod.
    fn logged(&mut self, line: &str) -> bool {
        let Some(entry) = log::entry(line) else {
            return false;
        };
        self.end_event();
        if entry.text.is_empty() {
            return true;
        }
        if let Some(pod) = self.seen.pod(entry.namespace.as_deref(), &entry.pod) {
            pod.node = pod.node.take().or(entry.node);
            pod.say(Said {
                text: entry.text,
                ..Said::default()
            });
        }
        true
    }

    fn end_event(&mut self) {
        if let Some((namespace, name, said)) = self.last.take()
            && let Some(pod) = self.seen.pod(namespace.as_deref(), &name)
        {
            pod.say(said);
        }
    }

    fn close(&mut self) {
        self.end_event();
        match std::mem::replace(&mut self.section, Section::Words) {
            Section::Describe(describe) => self.seen.add(describe.pod()),
            Section::Yaml(document) if !yaml(&document, self.seen) => {
                self.words.push_str(&document);
            }
            Section::Words | Section::Events(_) | Section::Yaml(_) => {}
        }
    }

    /// The sentences outside of any section: one message, or several where several begin.
    fn end_words(&mut self) {
        let words = std::mem::take(&mut self.words);
        let messages = messages(&words);
        let Some(pod) = self.seen.pod(None, "").filter(|_| !messages.is_empty()) else {
            return;
        };
        for text in messages {
            pod.say(Said {
                text,
                ..Said::default()
            });
        }
        self.seen
            .pods
            .retain(|pod| !pod.name.is_empty() || !pod.said.is_empty());
    }
}

/// Sentences by which a kubelet's message about an image begins.
const MESSAGES: &[&str] = &[
    "Failed to pull image \"",
    "Back-off pulling image \"",
    "Failed to apply default image tag \"",
    "Failed to inspect image \"",
    "Container image \"",
    "Unable to retrieve some image pull secrets",
    "(combined from similar events)",
    "Error: ErrImagePull",
    "Error: ImagePullBackOff",
    "Pulling image \"",
    "Successfully pulled image \"",
    "Error response from daemon: ",
];

fn begins_message(line: &str) -> bool {
    let line = line.trim_start_matches(|c: char| " \t-*>'`|".contains(c));
    let line = line
        .strip_prefix("message: ")
        .unwrap_or(line)
        .trim_start_matches(['\'', '"', '|', ' ']);
    MESSAGES.iter().any(|beginning| line.starts_with(beginning))
}

/// Cuts sentences into messages: at each line that begins one, when several do; else all is one message, as a person pasted it.
fn messages(words: &str) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let begun = words.lines().filter(|line| begins_message(line)).count();
    if begun < 2 {
        let text = words.trim();
        return Some(folded(text))
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
    }
    for line in words.lines() {
        match messages.last_mut() {
            Some(last) if !begins_message(line) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => messages.push(line.trim().to_owned()),
        }
    }
    messages.iter().map(|text| folded(text)).collect()
}

/// A message as YAML folds it, `message: 'Back-off ...` and indented lines, as one line.
fn folded(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let key = first
        .trim_start_matches([' ', '-'])
        .starts_with("message: ");
    let rest: Vec<&str> = lines.collect();
    if !key || rest.is_empty() || !rest.iter().all(|line| line.starts_with(' ')) {
        return text.to_owned();
    }
    let whole: Vec<&str> = std::iter::once(first).chain(rest).map(str::trim).collect();
    whole.join(" ")
}
