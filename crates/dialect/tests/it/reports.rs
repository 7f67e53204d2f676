//! Messages of the kinds that people report, with hosts and names of our own: the causes that each allows, the likeliest first.
//!
//! Each line was judged before the reader saw it. What it did not know then, it learnt as a form; so this list shows that nothing is
//! lost again, and no longer how well unseen text is read.

use towline_cause::Cause;

/// Causes, a tab, the message; line ends and tabs within it are escaped.
const REPORTS: &str = include_str!("reports.tsv");

/// Every message with the causes that it allows.
pub(crate) fn all() -> Vec<(String, Vec<Cause>)> {
    REPORTS
        .lines()
        .map(|line| {
            let (causes, message) = line.split_once('\t').unwrap();
            let message = message.replace("\\n", "\n").replace("\\t", "\t");
            let named = |name| Cause::from_name(name).unwrap_or_else(|| panic!("{name}"));
            (message, causes.split(',').map(named).collect())
        })
        .collect()
}

#[test]
fn reported_messages_are_read() {
    let mut missed = Vec::new();
    for (message, allowed) in all() {
        let read = towline_dialect::read(&message).cause;
        if !allowed.contains(&read) {
            missed.push(format!("{read} is none of {allowed:?}: {message}"));
        }
    }
    let total = REPORTS.lines().count();
    assert!(total > 200, "{total}");
    assert!(missed.is_empty(), "{missed:#?}");
}
