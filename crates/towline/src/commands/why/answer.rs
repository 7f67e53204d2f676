//! An answer in the form that was asked for: text, JSON, YAML, Markdown; and the exit code that it means.

use towline_cause::Cause;
use towline_explain::Diagnosis;
use towline_explain::scan::{Ask, Scan};

use super::{markdown, text};
use crate::exit::{BROKEN, OK, UNDECIDED};
use crate::output::{self, Format};

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// For people.
    #[default]
    Text,
    /// JSON, as docs/schema/diagnosis.v1.json describes it.
    Json,
    /// The same as YAML.
    Yaml,
    /// For tickets.
    Markdown,
}

/// Everything that is said to one question.
#[derive(Debug)]
pub(crate) struct Answer {
    scan: Scan,
    /// Whether one thing was asked about by name: then its only diagnosis is the whole document.
    single: bool,
}

impl Answer {
    /// Diagnoses of images or texts, which no cluster was asked about.
    pub(crate) fn of(scope: &str, diagnoses: Vec<Diagnosis>) -> Self {
        Self {
            single: true,
            scan: Scan::of(scope, diagnoses),
        }
    }

    /// What a text says; of less than two pods it is one answer, or one for each image.
    pub(super) fn of_text(scan: Scan) -> Self {
        Self {
            single: scan.pods < 2,
            scan,
        }
    }

    pub(super) fn of_scan(mut scan: Scan, asks: &[Ask]) -> Self {
        let single = matches!(asks, [Ask::Pod { .. } | Ask::Workload { .. }]);
        if matches!(asks, [Ask::Pod { .. }]) {
            for item in &mut scan.items {
                item.affected = None;
            }
        }
        Self { scan, single }
    }

    /// Prints it.
    pub(crate) fn print(&self, style: Style) -> anyhow::Result<()> {
        match style {
            Style::Text => text::print_scan(&self.scan, self.single)?,
            Style::Markdown => markdown::print(&self.scan, self.single)?,
            Style::Json => self.document(Format::Json)?,
            Style::Yaml => self.document(Format::Yaml)?,
        }
        Ok(())
    }

    fn document(&self, format: Format) -> anyhow::Result<()> {
        match &self.scan.items[..] {
            [only] if self.single => output::document(format, only),
            _ => output::document(format, &self.scan),
        }
    }

    /// The diagnoses, most harmful first.
    pub(super) fn diagnoses(&self) -> &[Diagnosis] {
        &self.scan.items
    }

    /// What makes an answer another one: not that an attempt more was made.
    pub(super) fn essence(&self) -> Vec<(bool, Option<Cause>, String, Vec<String>)> {
        let of = |one: &Diagnosis| {
            let pods = one.affected.as_ref().map(|affected| affected.pods.clone());
            let pods = pods.unwrap_or_default();
            (one.pulls, one.cause, one.summary.clone(), pods)
        };
        self.scan.items.iter().map(of).collect()
    }

    /// 0 all pull, 1 some do not, 2 it could not be told.
    pub(crate) fn code(&self) -> u8 {
        let open = self.scan.items.iter().filter(|one| !one.pulls);
        let causes: Vec<Option<Cause>> = open.map(|one| one.cause).collect();
        let undecided = |cause: &Option<Cause>| matches!(cause, None | Some(Cause::Unknown));
        if causes.is_empty() {
            OK
        } else if causes.iter().all(undecided) {
            UNDECIDED
        } else {
            BROKEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_explain::Target;

    #[test]
    fn the_exit_code_says_what_is_known() {
        let of = |cause: Option<Cause>| Diagnosis {
            cause,
            pulls: cause.is_none(),
            ..Diagnosis::about(Target::image("x"))
        };
        let code = |causes: &[Option<Cause>]| {
            Answer::of("x", causes.iter().map(|cause| of(*cause)).collect()).code()
        };
        assert_eq!(code(&[]), OK);
        assert_eq!(code(&[None]), OK);
        assert_eq!(code(&[None, Some(Cause::Unknown)]), UNDECIDED);
        assert_eq!(
            code(&[Some(Cause::Unknown), Some(Cause::TagNotFound)]),
            BROKEN
        );
    }
}
