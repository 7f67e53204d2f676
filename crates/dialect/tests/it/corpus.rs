//! How many messages of real clusters are read rightly, wrongly, or not at all.

use std::path::PathBuf;

use serde_json::Value;
use towline_cause::{Cause, Confidence};

/// The lines of a sample; `None`, said aloud, without the samples.
pub(crate) fn sample(path: &str) -> Option<Vec<Value>> {
    let Some(folder) = std::env::var_os("TOWLINE_SHARED") else {
        eprintln!("skipped: needs TOWLINE_SHARED");
        return None;
    };
    let path = PathBuf::from(folder).join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

fn causes(value: &Value) -> Vec<Cause> {
    value
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|name| Cause::from_name(name.as_str().unwrap()))
        .collect()
}

#[test]
fn at_most_one_percent_of_the_messages_is_read_wrongly() {
    let Some(messages) = sample("corpus/messages.jsonl") else {
        return;
    };
    let show = std::env::var_os("TOWLINE_SHOW").is_some();
    let (mut exact, mut fair, mut silent, mut wrong, mut over) = (0, 0, 0, 0, 0);
    for message in &messages {
        let reading = towline_dialect::read(message["message"].as_str().unwrap());
        let truth = Cause::from_name(message["cause"].as_str().unwrap()).unwrap();
        let possible = causes(&message["possible"]);
        let verdict = if reading.cause == truth {
            exact += 1;
            "exact"
        } else if reading.cause == Cause::Unknown {
            silent += 1;
            "silent"
        } else if !possible.contains(&reading.cause) {
            wrong += 1;
            "WRONG"
        } else if reading.confidence == Confidence::Stated {
            over += 1;
            "over"
        } else {
            fair += 1;
            "fair"
        };
        if show && verdict != "exact" && verdict != "fair" {
            eprintln!(
                "{verdict} {} {truth:?} {possible:?} read {:?}: {}",
                message["id"], reading.cause, message["message"]
            );
        }
    }
    let total = messages.len();
    eprintln!(
        "{total} messages: {exact} the true cause, {fair} another that the text leaves open, {silent} silent, \
         {over} too sure, {wrong} wrong"
    );
    assert!(wrong * 100 <= total, "{wrong} of {total} are wrong");
    assert!(over * 100 <= total * 5, "{over} of {total} are too sure");
    assert!(
        (exact + fair) * 100 >= total * 80,
        "{exact} + {fair} of {total} are read"
    );
}
