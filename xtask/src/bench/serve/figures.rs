//! What was measured, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::BOUND;
use super::contender::Kind;
use crate::bench::say;

/// Values by what was measured and by contender, each as often as it was measured.
pub(super) struct Figures(Vec<(String, BTreeMap<&'static str, Vec<f64>>)>);

impl Figures {
    /// A table with these rows, in this order; others come behind them.
    pub(super) fn new(names: Vec<String>) -> Self {
        let rows = names.into_iter().map(|name| (name, BTreeMap::new()));
        Self(rows.collect())
    }

    pub(super) fn note(&mut self, what: &str, who: &'static str, value: f64) {
        say(&format!("{what}, {who}: {value:.2}"));
        let at = self.0.iter().position(|(name, _)| name == what);
        let at = at.unwrap_or_else(|| {
            self.0.push((what.to_owned(), BTreeMap::new()));
            self.0.len() - 1
        });
        let row = &mut self.0[at];
        row.1.entry(who).or_default().push(value);
    }

    /// The table. `peer` is what the other registry is called in it.
    pub(super) fn markdown(&self, peer: &str) -> String {
        let [ours, theirs] = Kind::ALL.map(Kind::name);
        let mut text = format!(
            "| | {ours} | {peer} | ratio | {BOUND} | of it |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        for (what, values) in self.0.iter().filter(|(_, values)| !values.is_empty()) {
            let value = |who| values.get(who).map(|all| median(all));
            let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
            let part = |of: Option<f64>| match (value(ours), of) {
                (Some(own), Some(of)) if of > 0.0 => format!("{:.2}", own / of),
                _ => "-".to_owned(),
            };
            let (own, peer, bound) = (value(ours), value(theirs), value(BOUND));
            let (ratio, of) = (part(peer), part(bound));
            let (own, peer, bound) = (cell(own), cell(peer), cell(bound));
            // Writing to a String does not fail.
            writeln!(
                text,
                "| {what} | {own} | {peer} | {ratio} | {bound} | {of} |"
            )
            .ok();
        }
        text
    }
}

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// Three digits or more, with commas between thousands.
fn shown(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_ratios_in_the_order_of_its_rows() {
        let mut figures = Figures::new(vec!["b (s)".to_owned(), "never".to_owned()]);
        for value in [1.0, 30_000.0, 2000.0] {
            figures.note("a (1/s)", "towline", value);
        }
        figures.note("a (1/s)", "docker-registry", 200.0);
        figures.note("a (1/s)", BOUND, 4000.0);
        figures.note("b (s)", "towline", 0.5);
        let table = figures.markdown("docker-registry 2.8.3");
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| b (s) | 0.50 | - | - | - | - |",
                "| a (1/s) | 2,000 | 200 | 10.00 | 4,000 | 0.50 |"
            ]
        );
    }
}
