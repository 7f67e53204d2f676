//! Judges what is read from messages against a file of messages whose causes are known, one JSON object a line with
//! `id`, `message`, `cause`, `possible` and `ambiguous`: `score FILE [-v]`. `cargo xtask score` runs it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command-line program"
)]

use std::process::ExitCode;

use serde_json::Value;
use towline_cause::Cause;

/// How an answer compares with the known cause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Right,
    Silent,
    Wrong,
}

fn judge(entry: &Value, read: Cause) -> Judgement {
    let truth = entry["cause"].as_str().unwrap_or_default();
    let ambiguous = entry["ambiguous"] == Value::Bool(true);
    let possible = entry["possible"].as_array().into_iter().flatten();
    let mut names = possible
        .filter(|_| ambiguous)
        .filter_map(Value::as_str)
        .chain([truth]);
    if names.any(|name| name == read.name()) {
        Judgement::Right
    } else if read == Cause::Unknown {
        Judgement::Silent
    } else {
        Judgement::Wrong
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_default();
    let verbose = arguments.any(|argument| argument == "-v");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut counts = [0_usize; 3];
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            eprintln!("error: {file}:{}: not JSON", number + 1);
            return ExitCode::FAILURE;
        };
        let message = entry["message"].as_str().unwrap_or_default();
        let diagnoses = towline_explain::text::explain(message);
        let read = diagnoses
            .first()
            .and_then(|first| first.cause)
            .unwrap_or(Cause::Unknown);
        let judgement = judge(&entry, read);
        counts[judgement as usize] += 1;
        if verbose && judgement != Judgement::Right {
            let word = if judgement == Judgement::Silent {
                "silent"
            } else {
                "wrong"
            };
            println!(
                "{word:<7} {} is {} read {read}: {message:?}",
                entry["id"], entry["cause"]
            );
        }
    }
    let total = counts.iter().sum::<usize>();
    let tenths = |count: usize| count * 1000 / total.max(1);
    for (count, word) in counts.into_iter().zip(["right", "silent", "wrong"]) {
        println!(
            "{word:<7} {count:>5}  {}.{} %",
            tenths(count) / 10,
            tenths(count) % 10
        );
    }
    println!("total   {total:>5}");
    let good = counts[0] * 100 >= total * 90 && counts[2] * 100 <= total;
    println!(
        "the aim (at least 90 % right, at most 1 % wrong) is {}",
        if good { "met" } else { "missed" }
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
