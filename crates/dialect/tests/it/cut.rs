//! Texts that were cut: the answer may become silent or leave the true cause open; it never becomes another one.

use towline_cause::{Cause, Confidence};

use crate::corpus::sample;
use crate::world;

/// Reads every beginning of a message of known causes; the beginnings whose answer is wrong.
fn wrong_beginnings(message: &str, truth: &[Cause]) -> Vec<String> {
    let mut wrong = Vec::new();
    // Every one takes a while in a test that is not optimised; each seventh meets almost every word.
    let step = if std::env::var_os("TOWLINE_LONG").is_some() {
        1
    } else {
        7
    };
    for (end, _) in message.char_indices().skip(1).step_by(step) {
        let beginning = &message[..end];
        let reading = towline_dialect::read(beginning);
        let open = reading.confidence != Confidence::Stated
            && reading
                .alternatives
                .iter()
                .any(|cause| truth.contains(cause));
        if reading.cause != Cause::Unknown && !truth.contains(&reading.cause) && !open {
            wrong.push(format!(
                "{:?} of ...{}",
                reading.cause,
                &beginning[beginning.len().saturating_sub(60)..]
            ));
        }
    }
    wrong
}

fn show(id: &str, truth: &[Cause], wrong: &[String]) {
    if std::env::var_os("TOWLINE_SHOW").is_some() && !wrong.is_empty() {
        eprintln!("{id} {truth:?}: {} beginnings, {}", wrong.len(), wrong[0]);
    }
}

#[test]
fn a_cut_message_of_a_real_cluster_is_never_read_wrongly() {
    let Some(messages) = sample("corpus/messages.jsonl") else {
        return;
    };
    let mut bad = 0;
    for message in &messages {
        let text = message["message"].as_str().unwrap();
        let whole = towline_dialect::read(text);
        let mut truth: Vec<Cause> = message["possible"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&message["cause"]])
            .filter_map(|name| Cause::from_name(name.as_str().unwrap()))
            .collect();
        truth.push(whole.cause);
        let wrong = wrong_beginnings(text, &truth);
        bad += usize::from(!wrong.is_empty());
        show(message["id"].as_str().unwrap(), &truth, &wrong);
    }
    assert_eq!(bad, 0, "of {} messages", messages.len());
}

#[test]
fn a_cut_form_is_never_read_wrongly() {
    for (text, causes) in world::all() {
        let mut truth = causes.to_vec();
        truth.push(towline_dialect::read(&text).cause);
        let wrong = wrong_beginnings(&text, &truth);
        assert!(wrong.is_empty(), "{text}\n{wrong:#?}");
    }
}

#[test]
fn a_cut_report_is_never_read_wrongly() {
    let mut bad = Vec::new();
    for (text, mut truth) in crate::reports::all() {
        truth.push(towline_dialect::read(&text).cause);
        let wrong = wrong_beginnings(&text, &truth);
        show("report", &truth, &wrong);
        if !wrong.is_empty() {
            bad.push((text, wrong[0].clone()));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// A terminal breaks at its edge, wherever that is.
#[test]
fn a_message_that_a_terminal_broke_says_the_same() {
    for (text, _) in world::all()
        .into_iter()
        .filter(|(text, _)| !text.contains('\n'))
    {
        let whole = towline_dialect::read(&text);
        let characters: Vec<char> = text.chars().collect();
        let lines: Vec<String> = characters
            .chunks(80)
            .map(|line| line.iter().collect())
            .collect();
        let broken = towline_dialect::read(&lines.join("\n"));
        assert_eq!(broken, whole, "{text}");
    }
}
